"""What is measured while values are read equals what is measured afterwards."""

import sys
from dataclasses import replace

import awkward as ak
import numpy as np
import pytest
import uproot
from hypothesis import given, settings
from hypothesis import strategies as st

from mlaas4hep_dask.encode.split import event_ids, file_id
from mlaas4hep_dask.errors import UnreadableFileError
from mlaas4hep_dask.events.events import Branch
from mlaas4hep_dask.reader import Partition, plan_file, read
from mlaas4hep_dask.reader.metered import note
from mlaas4hep_dask.specs.draw import SIZE, entry_keys
from mlaas4hep_dask.specs.measure import measure, moments
from mlaas4hep_dask.specs.meter import Meter
from mlaas4hep_dask.specs.moments import from_row

INTEGERS = [f"{kind}{size}" for kind in ("int", "uint") for size in (8, 16, 32, 64)]
DTYPES = [*INTEGERS, "float32", "float64"]
read_module = sys.modules["mlaas4hep_dask.reader.read"]  # the room has a function of that name
CODECS = {"zlib": uproot.ZLIB(1), "lz4": uproot.LZ4(1), "zstd": uproot.ZSTD(1), "none": None}


def numbers(rng, dtype, size):
    dtype = np.dtype(dtype)
    if dtype.kind == "b":
        return rng.random(size) < 0.3
    if dtype.kind == "f":
        return rng.normal(-3.0, 40.0, size).astype(dtype)
    limits = np.iinfo(dtype)
    return rng.integers(limits.min, limits.max, size, dtype, endpoint=True)


def odd_columns(rng, size):
    """Columns whose plain sums are not finite, or lose digits."""
    with_nan = rng.normal(size=size).astype(np.float32)
    with_nan[size // 2] = np.nan
    infinite = rng.normal(size=size)
    infinite[-1] = -np.inf
    return {
        "flat_nan": with_nan,
        "flat_only_nan": np.full(size, np.nan),
        "flat_all_kinds": rng.choice(np.array([np.nan, np.inf, -np.inf, 2.0, 3.0]), size),
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


def both(plan, start, stop, keep=None):
    """Specs of some entries: measured while they are read, and afterwards; and the events."""
    branches = list(plan.branches.values())
    partition = Partition(plan.file, plan.tree, plan.uuid, start, stop, "s")
    meter = Meter(entry_keys(file_id(plan.uuid), start, stop))
    events = read(partition, branches, meter, keep)
    plain = read(partition, branches)
    for name, values in events.contents.items():
        assert values.dtype == plain.contents[name].dtype
        assert values.tobytes() == plain.contents[name].tobytes()
    afterwards = measure(plain, sample="s", ids=event_ids(plan.uuid, start, stop))
    metered = measure(events, sample="s", meter=meter, branches=branches)
    return metered, afterwards, events, meter


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
    rounding = min(expected.num_finite * (1e-15 * spread) * 1e-15 * spread, 1e300)
    assert found.squares == pytest.approx(expected.squares, rel=1e-10, abs=rounding)


ODD = {"flat_huge"}  # sums leave float64


@pytest.mark.slow
@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("entries", [(9_000, 9_000, 500), (40,) * 30, (1, 1, 1)])
def test_specs_are_the_same_whenever_events_are_measured(codec, entries, tmp_path):
    plan = write(tmp_path / "a.root", codec=codec, entries=entries)
    total = sum(entries)
    for start, stop in ((0, total), (1, total - 1), (total // 3, total // 2), (total, total)):
        metered, afterwards, events, meter = both(plan, start, stop)
        assert_same(metered, afterwards)
        assert events.contents.keys() == plan.branches.keys()
        if (start, stop) == (0, total) and total > 100:
            assert plan.branches.keys() - meter.enough() == ODD


@pytest.mark.parametrize("keep", [(), ("flat_int16", "Jet_float32")])
def test_values_that_nothing_needs_are_not_kept(keep, tmp_path):
    plan = write(tmp_path / "a.root", codec="lz4", entries=(900, 900, 500))
    for start, stop in ((0, 2_300), (7, 1_900), (5, 5)):
        metered, afterwards, events, _ = both(plan, start, stop, keep)
        assert_same(metered, afterwards)
        assert events.offsets.keys() == {"Jet"}
        assert events.contents.keys() == {*keep, "nJet", *(ODD if stop > start else ())}
        assert [branch.name for branch in events.branches] == [
            name for name in plan.branches if name in events.contents
        ]


def test_branches_that_only_uproot_reads_are_kept(tmp_path):
    plan = write(tmp_path / "a.root", codec="lz4", entries=(30,))
    with uproot.recreate(tmp_path / "b.root", compression=uproot.LZMA(1)) as file:
        file["Events"] = {"x": np.arange(30.0), "y": np.arange(30)}
    plan = plan_file(str(tmp_path / "b.root"), "Events", "s")
    metered, afterwards, events, meter = both(plan, 3, 20, ())
    assert_same(metered, afterwards)
    assert events.contents.keys() == {"x", "y"}
    assert meter.enough() == set()


def test_extremes_and_draws_are_those_of_the_values(tmp_path):
    plan = write(tmp_path / "a.root", codec="lz4", entries=(6_000,) * 2)
    metered, _, _, meter = both(plan, 0, 12_000, ())
    with uproot.open({plan.file: "Events"}) as tree:
        for name in meter.enough():
            values = ak.to_numpy(ak.flatten(tree[name].array(), axis=None)).astype(np.float64)
            values = values[np.isfinite(values)]
            if values.size == 0:
                assert metered.branches[name].min is None
                continue
            entry = metered.branches[name]
            assert (entry.min, entry.max) == (values.min(), values.max())
            assert entry.mean == pytest.approx(values.mean(), rel=1e-9, abs=1e-12 * np.ptp(values))
            assert entry.variance == pytest.approx(values.var(), rel=1e-9)


def test_what_was_read_but_then_changed_is_measured_anew(tmp_path):
    plan = write(tmp_path / "a.root", codec="lz4", entries=(2_000,))
    branches = [plan.branches["flat_float32"], plan.branches["flat_float64"]]
    partition = Partition(plan.file, plan.tree, plan.uuid, 0, 2_000, "s")
    keys = entry_keys(file_id(plan.uuid), 0, 2_000)
    meter = Meter(keys)
    events = read(partition, branches, meter)
    doubled = events.contents["flat_float32"] * 2
    changed = replace(events, contents={**events.contents, "flat_float32": doubled})
    found = measure(changed, sample="s", meter=meter)
    ids = event_ids(plan.uuid, 0, 2_000)
    assert_same(found, measure(changed, sample="s", ids=ids))
    assert found.branches["flat_float32"].max == doubled.max()
    few = replace(events, num_events=3, contents={n: v[:3] for n, v in events.contents.items()})
    assert_same(
        measure(few, sample="s", ids=ids[:3], meter=meter), measure(few, sample="s", ids=ids[:3])
    )


@settings(deadline=None)  # the first call compiles
@given(
    st.sampled_from(DTYPES),
    st.lists(st.integers(0, 5_000), min_size=1, max_size=4),  # some have four rows at once
    st.integers(0, 2**32 - 1),
)
def test_values_are_measured_basket_by_basket(dtype, sizes, seed):
    rng = np.random.default_rng(seed)
    values = numbers(rng, dtype, sum(sizes))
    meter = Meter(entry_keys(seed, 0, values.size))
    branch = Branch("x", "flat", np.dtype(dtype).name)
    watch = meter.watch([branch], {"x": values}, None)["x"]
    first = 0
    for size in sizes:
        note(values[first : first + size], first, watch)
        first += size
    assert meter.enough() == {"x"}
    seen, rows = meter.observations(["x"], {"x": values[:]})
    assert rows == [None]  # another view of the same memory may be anything
    seen, rows = meter.observations(["x"], {"x": values})
    assert rows == [0]
    assert_close(from_row(seen.numbers[0]), moments(values))
    drawn = np.sort(watch.drawn[watch.row])
    assert np.isin(drawn, values).all()
    if values.size <= SIZE:
        assert drawn.tobytes() == np.sort(values).tobytes()


def test_an_attempt_that_was_given_up_does_not_disturb_the_next(tmp_path, monkeypatch):
    plan = write(tmp_path / "a.root", codec="lz4", entries=(300,))
    meters = []
    of_opened = read_module._read

    def noted(opened, partition, branches, meter, keep):
        meters.append(meter)
        return of_opened(opened, partition, branches, meter, keep)

    def twice(action, file, *_, **__):
        action(file)
        return action(file)

    monkeypatch.setattr(read_module, "_read", noted)
    monkeypatch.setattr(read_module, "attempt", twice)
    branches = list(plan.branches.values())
    partition = Partition(plan.file, plan.tree, plan.uuid, 0, 300, "s")
    meter = Meter(entry_keys(file_id(plan.uuid), 0, 300))
    events = read(partition, branches, meter, ())
    flat = [branch for branch in branches if branch.kind == "flat"]
    meters[0].watch(flat, {}, None)  # the first wakes up and starts again
    found = measure(events, sample="s", meter=meter, branches=branches)
    monkeypatch.undo()
    plain = read(partition, branches)
    assert_same(found, measure(plain, sample="s", ids=event_ids(plan.uuid, 0, 300)))


def test_a_damaged_multiplicity_takes_no_memory(tmp_path):
    path = tmp_path / "a.root"
    counts = np.random.default_rng(1).integers(0, 4, 100)
    jets = ak.zip({"pt": np.arange(counts.sum(), dtype=np.float32)})
    with uproot.recreate(path, compression=None) as file:
        file.mktree("Events", {"Jet": ak.types.ListType(jets.type.content)})
        file["Events"].extend({"Jet": ak.unflatten(jets, counts)})
    raw = path.read_bytes()
    place = raw.index(counts.astype(">i4").tobytes())
    path.write_bytes(raw[:place] + (2**30).to_bytes(4, "big") + raw[place + 4 :])
    plan = plan_file(str(path), "Events", "s")
    partition = Partition(plan.file, plan.tree, plan.uuid, 0, 100, "s")
    meter = Meter(entry_keys(file_id(plan.uuid), 0, 100))
    with pytest.raises(UnreadableFileError, match=r"multiplicity of 1073741824 in 'nJet'"):
        read(partition, list(plan.branches.values()), meter, ())
