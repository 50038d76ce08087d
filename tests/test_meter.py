"""What is measured while values are read equals what is measured afterwards."""

import awkward as ak
import numpy as np
import pytest
import uproot
from hypothesis import given, settings
from hypothesis import strategies as st

from mlaas4hep_dask.encode.split import event_ids, file_id
from mlaas4hep_dask.reader import Partition, plan_file, read
from mlaas4hep_dask.reader.metered import copy_metered
from mlaas4hep_dask.specs.draw import entry_keys
from mlaas4hep_dask.specs.events import Branch
from mlaas4hep_dask.specs.measure import measure, moments
from mlaas4hep_dask.specs.meter import Meter

INTEGERS = [f"{kind}{size}" for kind in ("int", "uint") for size in (8, 16, 32, 64)]
DTYPES = [*INTEGERS, "float32", "float64"]
CODECS = {"zlib": uproot.ZLIB(1), "lz4": uproot.LZ4(1), "zstd": uproot.ZSTD(1), "none": None}
CLOSE = {"rel": 1e-10, "abs": 1e-300}


def numbers(rng, dtype, size):
    dtype = np.dtype(dtype)
    if dtype.kind == "b":
        return rng.random(size) < 0.3
    if dtype.kind == "f":
        return rng.normal(-3.0, 40.0, size).astype(dtype)
    limits = np.iinfo(dtype)
    return rng.integers(limits.min, limits.max, size, dtype, endpoint=True)


def odd_columns(rng, size):
    """Columns whose moments have to be taken afterwards, and some that are nearly such."""
    with_nan = rng.normal(size=size).astype(np.float32)
    with_nan[size // 2] = np.nan
    infinite = rng.normal(size=size)
    infinite[-1] = -np.inf
    return {
        "flat_nan": with_nan,
        "flat_infinite": infinite,
        "flat_constant": np.full(size, 0.1),
        "flat_close": 1e6 + rng.normal(size=size),
        "flat_huge": np.where(rng.random(size) < 0.5, 1e300, -1e300),
        "flat_zero": np.full(size, -0.0, dtype=np.float32),
        "flat_run": np.full(size, 362_104, dtype=np.uint32),
    }


def write(path, *, codec, entries, seed=3):
    rng = np.random.default_rng(seed)
    flat = {f"flat_{dtype}": dtype for dtype in ("bool", *DTYPES)}
    odd = {name: column.dtype for name, column in odd_columns(rng, 4).items()}
    jets = ak.types.RecordType([ak.types.NumpyType(dtype) for dtype in DTYPES], DTYPES)
    with uproot.recreate(path, compression=CODECS[codec]) as file:
        file.mktree("Events", {**flat, **odd, "Jet": ak.types.ListType(jets)})
        for num in entries:
            counts = rng.integers(0, 6, num)
            content = ak.zip({dtype: numbers(rng, dtype, counts.sum()) for dtype in DTYPES})
            columns = {name: numbers(rng, dtype, num) for name, dtype in flat.items()}
            columns |= odd_columns(rng, num)
            file["Events"].extend({**columns, "Jet": ak.unflatten(content, counts)})
    return plan_file(str(path), "Events", "s")


def both(plan, start, stop):
    """Specs of some entries: measured while they are read, and afterwards."""
    branches = list(plan.branches.values())
    partition = Partition(plan.file, plan.tree, plan.uuid, start, stop, "s")
    meter = Meter(entry_keys(file_id(plan.uuid), start, stop))
    events = read(partition, branches, meter)
    plain = read(partition, branches)
    for name, values in plain.contents.items():
        assert events.contents[name].dtype == values.dtype
        assert events.contents[name].tobytes() == values.tobytes()
    afterwards = measure(plain, sample="s", ids=event_ids(plan.uuid, start, stop))
    return measure(events, sample="s", meter=meter), afterwards, meter.seen(events.contents)


def assert_same(found, expected):
    assert found.multiplicities == expected.multiplicities
    assert found.draws == expected.draws
    assert found.branches.keys() == expected.branches.keys()
    for name, entry in found.branches.items():
        other = expected.branches[name]
        assert entry.drawn.dtype == other.drawn.dtype
        assert entry.drawn.tobytes() == other.drawn.tobytes(), name
        assert_close(entry.moments, other.moments)


def assert_close(found, expected):
    assert found[:6] == expected[:6]  # all but mean and squares, which are sums in some order
    spread = max(abs(expected.max or 0.0), abs(expected.min or 0.0))
    assert found.mean == pytest.approx(expected.mean, rel=1e-10, abs=1e-12 * spread)
    assert found.squares == pytest.approx(expected.squares, **CLOSE)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("entries", [(9_000, 9_000, 500), (40,) * 30, (1, 1, 1)])
def test_specs_are_the_same_whenever_events_are_measured(codec, entries, tmp_path):
    plan = write(tmp_path / "a.root", codec=codec, entries=entries)
    total = sum(entries)
    for start, stop in ((0, total), (1, total - 1), (total // 3, total // 2), (total, total)):
        metered, afterwards, seen = both(plan, start, stop)
        assert_same(metered, afterwards)
        if (start, stop) == (0, total) and total > 100:
            left = {"nan", "infinite", "constant", "close", "huge", "run"}
            assert plan.branches.keys() - seen.keys() == {f"flat_{name}" for name in left}


def test_extremes_and_draws_are_those_of_the_values(tmp_path):
    plan = write(tmp_path / "a.root", codec="lz4", entries=(6_000,) * 2)
    metered, _, seen = both(plan, 0, 12_000)
    with uproot.open({plan.file: "Events"}) as tree:
        for name in seen:
            values = ak.to_numpy(ak.flatten(tree[name].array(), axis=None)).astype(np.float64)
            entry = metered.branches[name]
            assert (entry.min, entry.max) == (values.min(), values.max())
            assert entry.mean == pytest.approx(values.mean(), rel=1e-9, abs=1e-12 * np.ptp(values))
            assert entry.variance == pytest.approx(values.var(), rel=1e-9)
            assert np.isin(entry.drawn.astype(np.float64), values).all()


def test_what_was_read_but_then_changed_is_measured_anew(tmp_path):
    plan = write(tmp_path / "a.root", codec="lz4", entries=(2_000,))
    branches = [plan.branches["flat_float32"]]
    partition = Partition(plan.file, plan.tree, plan.uuid, 0, 2_000, "s")
    keys = entry_keys(file_id(plan.uuid), 0, 2_000)
    meter = Meter(keys)
    events = read(partition, branches, meter)
    assert meter.seen(events.contents).keys() == {"flat_float32"}
    assert meter.seen({"flat_float32": events.contents["flat_float32"] * 2}) == {}
    again = read(partition, branches)
    assert meter.seen(again.contents) == {}


@settings(deadline=None)  # the first call compiles
@given(
    st.sampled_from(DTYPES),
    st.lists(st.integers(0, 300), min_size=1, max_size=4),
    st.integers(0, 17),
    st.integers(0, 40),
    st.integers(0, 2**32 - 1),
)
def test_values_are_copied_and_measured_at_any_place(dtype, sizes, source, target, seed):
    rng = np.random.default_rng(seed)
    dtype = np.dtype(dtype)
    values = numbers(rng, dtype, sum(sizes))
    memory = np.zeros(target + values.size + 70, dtype=f"u{dtype.itemsize}")
    out = memory[target : target + values.size]
    meter = Meter(entry_keys(seed, 0, values.size))
    watch = meter.watch(Branch("x", "flat", dtype.name), out.view(dtype), None)
    first = 0
    for size in sizes:  # one basket after the other
        piece = values[first : first + size].astype(dtype.newbyteorder(">"))
        raw = np.frombuffer(bytes(source) + piece.tobytes(), np.uint8)[source:]
        copy_metered(raw.view(out.dtype), out, first, watch)
        first += size
    assert out.tobytes() == values.tobytes()
    assert not memory[:target].any()
    assert not memory[target + values.size :].any()
    seen = meter.seen({"x": watch.values})
    if values.size == 0:
        assert seen == {}
    elif np.ptp(values.astype(np.float64)) > 0.1 * np.abs(values.astype(np.float64)).max():
        assert_close(seen["x"][0], moments(values))
        assert seen["x"][1].tobytes() == values.tobytes()  # few enough that all are drawn
