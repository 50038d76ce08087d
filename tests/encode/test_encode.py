from dataclasses import replace
from itertools import pairwise

import awkward as ak
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from strategies import BRANCHES, events, num_examples, part_of, split_events

from mlaas4hep_dask.encode import EncodeCounts, Encoding, decode, encode, scatter
from mlaas4hep_dask.encode.normalise import normalised
from mlaas4hep_dask.encode.precision import inexact_branches
from mlaas4hep_dask.encode.scaling import Scaling, Table
from mlaas4hep_dask.errors import EncodeError
from mlaas4hep_dask.events import Events
from mlaas4hep_dask.specs.measure import measure
from mlaas4hep_dask.specs.specs import merge_all

NORMALISATIONS = ("minmax", "standard")
WIDTHS = st.just("max") | st.integers(0, 5)


def events_of(**fields):
    return Events.from_awkward(ak.Array(fields))


def encoding_of(events, **options):
    options = {"normalisation": "minmax", **options}
    return Encoding.from_specs(measure(events, sample="s"), **options)


def pad_by_awkward(array, columns, cap="max"):
    """Raw float64 values of the named columns, NaN where there is none, by awkward alone."""
    flat = sorted(name for name in array.fields if array[name].ndim == 1)
    jagged = sorted(name for name in array.fields if array[name].ndim == 2)
    padded, names = [ak.to_numpy(array[name]).astype(np.float64)[:, None] for name in flat], flat
    for name in jagged:
        width = max(ak.num(array[name]).to_list(), default=0)
        width = width if cap == "max" else min(width, cap)
        values = ak.values_astype(array[name], np.float64)
        values = ak.fill_none(ak.pad_none(values, width, clip=True, axis=1), np.nan)
        padded.append(ak.to_numpy(ak.to_regular(values, axis=1)).reshape(len(array), width))
        names = names + [f"{name}[{i}]" for i in range(width)]
    assert names == columns
    return np.concatenate([np.empty((len(array), 0)), *padded], axis=1)


def by_plain_numpy(array, layout, *, normalisation, cap="max"):
    """Dense rows and missing mask, with the normalisation measured by plain NumPy too."""
    raw = pad_by_awkward(array, layout.columns(), cap)
    shift, scale = np.zeros(raw.shape[1]), np.ones(raw.shape[1])
    for column, name in enumerate(layout.columns()):
        values = array[name.split("[")[0]]
        values = ak.to_numpy(ak.flatten(values, axis=None)).astype(np.float64)
        finite = values[np.isfinite(values)]
        if finite.size == 0:
            continue
        low, high = finite.min(), finite.max()
        shift[column] = low
        if low == high:
            continue
        if normalisation == "minmax":
            scale[column] = 1 / (high - low)
        else:
            shift[column], scale[column] = finite.mean(), 1 / finite.std()
    missing = ~np.isfinite(raw)
    x = np.where(missing, 0.0, (np.where(missing, 0.0, raw) - shift) * scale)
    return x.astype(np.float32), missing


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
@given(split=split_events(), width=WIDTHS)
@num_examples(50)
def test_encoding_parts_equals_encoding_the_whole(normalisation, split, width):
    whole, parts = split
    options = {"normalisation": normalisation, "width": width}
    encoding = encoding_of(whole, **options)
    expected = encode(whole, encoding)
    encoded = [encode(part, encoding) for part in parts]
    for method in ("dense", "missing"):
        found = np.concatenate([getattr(part, method)() for part in encoded])
        assert found.tobytes() == getattr(expected, method)().tobytes()
    assert sum((part.counts for part in encoded), EncodeCounts()) == expected.counts
    assert sum(map(len, encoded)) == len(expected)


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_real_files_are_encoded_bit_by_bit_alike_whatever_the_partitions(normalisation, cms_events):
    rows = set()
    for num_parts in (1, 3, 50):
        edges = np.linspace(0, len(cms_events), num_parts + 1).astype(int)
        parts = [part_of(cms_events, a, b) for a, b in pairwise(edges)]
        specs = merge_all(measure(part, sample="s") for part in parts)
        encoding = Encoding.from_specs(specs, normalisation=normalisation)
        rows.add(np.concatenate([encode(part, encoding).dense() for part in parts]).tobytes())
    assert len(rows) == 1


@pytest.mark.parametrize("width", ["max", 2, 0])
def test_dense_rows_of_real_files_equal_padding_by_awkward(width, cms_events):
    encoded = encode(cms_events, encoding_of(cms_events, width=width))
    array = cms_events.to_awkward()
    x, missing = by_plain_numpy(array, encoded.layout, normalisation="minmax", cap=width)
    np.testing.assert_array_equal(encoded.dense(), x)
    np.testing.assert_array_equal(encoded.missing(), missing)
    assert encoded.dense().dtype == np.float32
    assert encoded.missing().dtype == np.bool_
    if width != 0:
        assert missing.any()
        assert x.min() == 0.0
        assert x.max() == 1.0


def test_standard_rows_of_real_files_have_mean_0_and_deviation_1(cms_events):
    encoded = encode(cms_events, encoding_of(cms_events, normalisation="standard"))
    array = cms_events.to_awkward()
    x, missing = by_plain_numpy(array, encoded.layout, normalisation="standard")
    # The package keeps nine digits of mean and deviation.
    np.testing.assert_allclose(encoded.dense(), x, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(encoded.missing(), missing)
    num_flat = len(encoded.layout.flat)
    dense = encoded.dense()[:, :num_flat].astype(np.float64)
    varies = dense.std(axis=0) > 0
    assert varies.any()
    np.testing.assert_allclose(dense[:, varies].mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(dense[:, varies].std(axis=0), 1, rtol=1e-5)


@given(events(), WIDTHS)
@num_examples(100)
def test_dense_rows_equal_padding_by_awkward(events, width):
    encoded = encode(events, encoding_of(events, width=width))
    x, missing = by_plain_numpy(
        events.to_awkward(), encoded.layout, normalisation="minmax", cap=width
    )
    np.testing.assert_array_equal(encoded.dense(), x)
    np.testing.assert_array_equal(encoded.missing(), missing)


@given(events(min_events=1), st.data())
@num_examples(60)
def test_chosen_rows_go_to_chosen_places_and_nowhere_else(events, data):
    encoded = encode(events, encoding_of(events))
    rows = np.array(
        data.draw(st.lists(st.integers(0, len(events) - 1), max_size=20)), dtype=np.int64
    )
    places = data.draw(st.permutations(range(len(rows) + 3)))
    positions = np.array(places[: len(rows)], dtype=np.int64)
    for method, untouched in (("dense", np.float32(7.0)), ("missing", np.bool_(True))):
        whole = getattr(encoded, method)()
        np.testing.assert_array_equal(getattr(encoded, method)(rows), whole[rows])
        out = np.full((len(rows) + 3, whole.shape[1]), untouched)
        returned = getattr(encoded, method)(rows, positions=positions, out=out)
        assert returned is out
        expected = np.full_like(out, untouched)
        expected[positions] = whole[rows]
        np.testing.assert_array_equal(out, expected)


@given(events(), st.data(), WIDTHS)
def test_chosen_events_have_the_rows_that_they_had(events, data, width):
    encoded = encode(events, encoding_of(events, width=width))
    flags = data.draw(st.lists(st.booleans(), min_size=len(events), max_size=len(events)))
    selected = np.array(flags, dtype=bool)
    chosen = encoded.chosen(selected)
    assert len(chosen) == selected.sum()
    np.testing.assert_array_equal(chosen.dense(), encoded.dense()[selected])
    np.testing.assert_array_equal(chosen.missing(), encoded.missing()[selected])
    np.testing.assert_array_equal(chosen.multiplicities(), encoded.multiplicities()[:, selected])
    assert not np.shares_memory(chosen.values, encoded.values)


@pytest.mark.parametrize("width", [1, 7, 8, 9, 16, 17, 33, "max"])
def test_rows_of_many_objects_equal_padding_by_awkward(width):
    rng = np.random.default_rng(3)
    counts = rng.choice([0, 1, 7, 8, 9, 15, 16, 17, 31, 40], (3, 60))
    fields = {}
    for collection, own in zip("abc", counts, strict=True):
        for branch in range(1 + rng.integers(3)):
            values = rng.normal(size=own.sum())
            values[rng.random(values.size) < 0.1] = np.nan
            fields[f"{collection}_{branch}"] = ak.unflatten(values, own)
    made = events_of(x=rng.normal(size=60), **fields)
    encoded = encode(made, encoding_of(made, width=width))
    x, missing = by_plain_numpy(
        made.to_awkward(), encoded.layout, normalisation="minmax", cap=width
    )
    np.testing.assert_array_equal(encoded.dense(), x)
    np.testing.assert_array_equal(encoded.missing(), missing)


@pytest.mark.slow
@settings(deadline=None)  # the first call compiles
@given(st.integers(2, 200), st.sampled_from(["float32", "float64", "int16"]), st.integers(0, 999))
def test_a_table_of_any_size_gives_each_value_its_piece(num, dtype, seed):
    rng = np.random.default_rng(seed)
    points = np.unique(np.concatenate([[0, 7], rng.integers(-900, 900, num - 2)]))
    ends = np.cumsum(rng.uniform(0.1, 2.0, points.size))
    table = Table(tuple(points.tolist()), tuple(ends.tolist()))
    values = np.concatenate([points, rng.uniform(-1_000, 1_000, 600)]).astype(dtype)
    scaling = Scaling(0.0, 1.0, -1_000.0, 1_000.0, table=table)
    found, num_missing, num_outside = normalised(values, scaling)
    assert (num_missing, num_outside) == (0, 0)
    np.testing.assert_array_equal(found, table.at(values.astype(np.float64)).astype(np.float32))


def test_many_rows_are_written_to_any_place(cms_events):
    encoded = encode(cms_events, encoding_of(cms_events))
    x, missing = encoded.dense(), encoded.missing()
    rng = np.random.default_rng(1)
    rows = rng.integers(0, len(encoded), 2 + 2 * scatter.TILE_BYTES // x[0].nbytes)
    for positions in (np.arange(rows.size), rng.permutation(rows.size)):
        expected = np.full((rows.size + 1, x.shape[1]), 7, dtype=np.float32)
        expected[positions] = x[rows]
        memory = np.full(expected.size + 37, 7, dtype=np.float32)
        for start in (0, 1, 15, 16, 36):  # where in a cache line the first row begins
            memory[:] = 7
            out = memory[start : start + expected.size].reshape(expected.shape)
            encoded.dense(rows, positions=positions, out=out)
            assert out.tobytes() == expected.tobytes()
            assert (memory[:start] == 7).all()
            assert (memory[start + expected.size :] == 7).all()
        for out in (np.zeros((*expected.shape, 2))[..., 1], np.zeros(expected.T.shape).T):
            out[-1] = 7
            assert encoded.dense(rows, positions=positions, out=out) is out  # float64, too
            np.testing.assert_array_equal(out, expected)
        raw = bytearray(expected.nbytes + 1)
        out = np.frombuffer(raw, np.float32, expected.size, offset=1).reshape(expected.shape)
        out[-1] = 7
        encoded.dense(rows, positions=positions, out=out)
        np.testing.assert_array_equal(out, expected)
        mask = np.zeros(expected.T.shape, dtype=np.bool_).T
        encoded.missing(rows, positions=positions, out=mask)
        np.testing.assert_array_equal(mask[positions], missing[rows])


def test_rows_and_their_mask_are_written_together(cms_events):
    encoded = encode(cms_events, encoding_of(cms_events))
    x, missing = encoded.inputs()
    assert x.tobytes() == encoded.dense().tobytes()
    assert missing.tobytes() == encoded.missing().tobytes()
    assert 0.1 < missing.mean() < 0.9
    rng = np.random.default_rng(2)
    rows = rng.integers(0, len(encoded), 2 + 2 * scatter.TILE_BYTES // x[0].nbytes)
    positions = rng.permutation(rows.size)
    shape = rows.size, x.shape[1]
    places = (
        (np.empty(shape, np.float32), np.empty(shape, np.bool_)),
        (np.empty(shape), np.empty(shape, np.bool_)),  # another dtype
        (np.empty(shape, np.float32), np.empty(shape[::-1], np.bool_).T),  # another order
    )
    for out in places:
        assert encoded.inputs(rows, positions=positions, out=out)[1] is out[1]
        np.testing.assert_array_equal(out[0][positions], x[rows])
        np.testing.assert_array_equal(out[1][positions], missing[rows])
    with pytest.raises(IndexError, match=f"positions from 0 to {rows.size - 1}, of 5"):
        encoded.inputs(rows, positions=positions, out=(places[0][0], np.empty((5, shape[1]), bool)))
    with pytest.raises(ValueError, match="do not go to"):
        encoded.inputs(rows, out=(places[0][0], np.empty((rows.size, 1), np.bool_)))


def test_contents_that_are_not_plain_memory_give_the_same_rows(cms_events):
    encoded = encode(cms_events, encoding_of(cms_events))
    expected = encoded.dense()
    for change in (
        {"values": np.repeat(encoded.values, 2)[::2]},
        {"values": encoded.values.astype(np.float64)},
        {"starts": np.repeat(encoded.starts, 2)[::2]},
        {"starts": encoded.starts.astype(np.int32)},
        {"offsets": np.asfortranarray(encoded.offsets)},
    ):
        assert replace(encoded, **change).dense().tobytes() == expected.tobytes()


@given(events(min_events=1))
def test_rows_and_places_that_do_not_exist_are_refused(events):
    encoded = encode(events, encoding_of(events))
    shape = len(events), encoded.layout.num_columns
    for name in ("dense", "missing"):
        method = getattr(encoded, name)
        for row in (-1, len(events), 2**62):
            with pytest.raises(IndexError, match="rows from"):
                method(np.array([row]))
            with pytest.raises(IndexError, match="positions from"):
                method(np.array([0]), positions=np.array([row]), out=np.zeros(shape))
        with pytest.raises(ValueError, match="read-only"):
            method(out=np.frombuffer(bytes(method().nbytes), method().dtype).reshape(shape))
        for out in (np.zeros((shape[0], shape[1] + 1)), np.zeros(shape[0])):
            with pytest.raises(ValueError, match="columns do not go to"):
                method(out=out)
        with pytest.raises(ValueError, match="columns do not go to"):
            method(np.array([0]), positions=np.array([0, 0]))


def test_shuffled_rows_are_those_of_their_events(cms_events):
    encoded = encode(cms_events, encoding_of(cms_events))
    rows = np.random.default_rng(1).permutation(len(cms_events))
    np.testing.assert_array_equal(encoded.dense(rows), encoded.dense()[rows])
    np.testing.assert_array_equal(encoded.missing(rows), encoded.missing()[rows])


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
@given(data=st.data())
@num_examples(60)
def test_decoding_gives_back_the_events(normalisation, data):
    made = data.draw(events())
    encoding = encoding_of(made, normalisation=normalisation)
    encoded = encode(made, encoding)
    if inexact_branches(encoding):
        with pytest.raises(EncodeError, match="do not hold the whole numbers of"):
            decode(encoded.dense(), encoded.missing(), encoding)
        return
    back = decode(
        encoded.dense(), encoded.missing(), encoding, multiplicities=encoded.multiplicities()
    )
    array = made.to_awkward()
    assert len(back) == len(array)
    assert set(back.fields) == set(array.fields)
    for branch, scaling in zip(encoding.branches, encoding.scalings, strict=True):
        found, expected = back[branch.name], array[branch.name]
        if branch.kind == "jagged":
            assert ak.num(found).to_list() == ak.num(expected).to_list()
            found, expected = ak.flatten(found), ak.flatten(expected)
        found = ak.to_numpy(found).astype(np.float64)
        expected = ak.to_numpy(expected).astype(np.float64)
        finite = np.isfinite(expected)
        if branch.dtype.startswith("float"):
            assert np.isnan(found[~finite]).all()
        if not finite.any():
            continue
        if np.dtype(branch.dtype).kind in "iub" and scaling.transform != "log":
            np.testing.assert_array_equal(found, expected)
            continue
        span = scaling.high - scaling.low
        resolution = np.finfo(branch.dtype).eps if branch.dtype.startswith("float") else 1e-15
        largest = np.abs(expected[finite]).max()
        tolerance = 2.0**-23 * span + 4 * resolution * largest + 1e-300
        if not branch.dtype.startswith("float"):
            tolerance += 0.5
        assert np.abs(found[finite] - expected[finite]).max() <= tolerance, branch.name


def test_values_whose_squares_are_too_small_for_float64_are_told_apart():
    made = events_of(x=[0.0, 2e-249])
    assert np.diff(encode(made, encoding_of(made, normalisation="standard")).dense()[:, 0]) == 1


@given(events(finite=True))
@num_examples(60)
def test_multiplicities_follow_from_the_missing_mask(events):
    encoding = encoding_of(events)
    assume(not inexact_branches(encoding))
    encoded = encode(events, encoding)
    back = decode(encoded.dense(), encoded.missing(), encoding)
    array = events.to_awkward()
    for name in ("Jet_pt", "Jet_id", "Muon_pt"):
        assert ak.num(back[name]).to_list() == ak.num(array[name]).to_list()
        assert back[name].type.content.content == array[name].type.content.content
    for row, collection in enumerate(encoded.layout.collections):
        counts = np.diff(events.offsets[collection])
        np.testing.assert_array_equal(encoded.multiplicities()[row], counts)


def test_rows_of_another_shape_cannot_be_decoded():
    encoding = encoding_of(events_of(x=[1.0, 2.0], Jet_y=[[1.0], [2.0, 3.0]]))
    for shape, other in (((2, 2), (2, 2)), ((2, 3), (1, 3)), ((3,), (3,))):
        with pytest.raises(EncodeError, match=r"expected both to be \(events, 3\)"):
            decode(np.zeros(shape, np.float32), np.zeros(other, bool), encoding)


@given(events(), WIDTHS, st.sampled_from(NORMALISATIONS))
@num_examples(60)
def test_what_encoding_counts_is_what_specs_foretell(events, width, normalisation):
    specs = measure(events, sample="s")
    encoding = Encoding.from_specs(specs, width=width, normalisation=normalisation)
    assert encode(events, encoding).counts == EncodeCounts.from_specs(specs, encoding)


def test_objects_beyond_the_width_are_counted(cms_events):
    array = cms_events.to_awkward()
    counts = encode(cms_events, encoding_of(cms_events, width=2)).counts
    beyond = ak.sum(np.maximum(ak.num(array["Jet_Px"]) - 2, 0))
    assert beyond > 0
    assert counts.truncated["Jet"] == beyond
    assert not counts.not_finite
    assert not counts.out_of_range


def test_nan_and_infinities_become_missing():
    made = events_of(
        x=np.array([1.0, np.nan, np.inf, -np.inf, 3.0]),
        Jet_y=[[np.nan, 1.0], [2.0, np.inf], [], [3.0], [np.nan]],
    )
    encoded = encode(made, encoding_of(made))
    assert encoded.missing().tolist() == [
        [False, True, False],
        [True, False, True],
        [True, True, True],
        [True, False, True],
        [False, True, True],
    ]
    assert encoded.dense()[:, 0].tolist() == [0.0, 0.0, 0.0, 0.0, 1.0]
    assert encoded.counts.not_finite == {"x": 3, "Jet_y": 3}
    assert not encoded.counts.out_of_range


@pytest.mark.parametrize(
    ("out_of_range", "expected"),
    [("pass", [-1.0, 0.0, 0.5, 1.0, 3.0]), ("clip", [0, 0, 0.5, 1, 1])],
)
def test_values_outside_the_specs_are_counted_and_passed_or_clipped(out_of_range, expected):
    encoding = encoding_of(events_of(x=[2.0, 4.0], Jet_y=[[2.0], [4.0]]), out_of_range=out_of_range)
    values = [0.0, 2.0, 3.0, 4.0, 8.0]
    encoded = encode(events_of(x=values, Jet_y=[[value] for value in values]), encoding)
    assert encoded.dense().tolist() == [[value, value] for value in expected]
    assert encoded.counts.out_of_range == {"x": 2, "Jet_y": 2}
    assert not encoded.missing().any()


@pytest.mark.parametrize(
    ("out_of_range", "clipped"),
    [
        ({"Jet_*": "clip"}, {"Jet_y", "Jet_z"}),
        ({"Jet_y": "pass", "*": "clip"}, {"x", "Jet_z"}),
        ([{"*_z": "clip"}, {"Jet_*": "pass"}], {"Jet_z"}),
        ({"*": "pass"}, set()),
    ],
)
def test_values_outside_are_clipped_in_the_branches_whose_pattern_says_so(out_of_range, clipped):
    known = events_of(x=[2.0, 4.0], Jet_y=[[2.0], [4.0]], Jet_z=[[2.0], [4.0]])
    values = [0.0, 2.0, 8.0]
    other = events_of(x=values, **{name: [[v] for v in values] for name in ("Jet_y", "Jet_z")})
    encoding = encoding_of(known, out_of_range=out_of_range)
    encoded = encode(other, encoding)
    for column, name in enumerate(("x", "Jet_y", "Jet_z")):
        expected = [0, 0, 1] if name in clipped else [-1, 0, 3]
        assert encoded.dense()[:, column].tolist() == expected, name
    assert encoded.counts.out_of_range == {"x": 2, "Jet_y": 2, "Jet_z": 2}


def test_wider_events_than_the_specs_know_are_cut_and_counted():
    encoding = encoding_of(events_of(Jet_y=[[1.0], [2.0]]))
    encoded = encode(events_of(Jet_y=[[1.0, 2.0, 2.0], []]), encoding)
    assert encoded.dense().tolist() == [[0.0], [0.0]]
    assert encoded.missing().tolist() == [[False], [True]]
    assert encoded.counts.truncated == {"Jet": 2}


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
@pytest.mark.parametrize("value", [0.0, -7.25, 1e30, 3])
def test_a_constant_branch_becomes_0(normalisation, value):
    made = events_of(x=[value] * 4)
    encoding = encoding_of(made, normalisation=normalisation)
    assert encode(made, encoding).dense().tolist() == [[0.0]] * 4
    other = encode(events_of(x=[value + 1]), encoding)
    assert other.counts.out_of_range == ({"x": 1} if value + 1 != value else {})


def test_a_branch_without_any_finite_value_is_missing_everywhere():
    made = events_of(x=[np.nan, np.inf])
    encoded = encode(made, encoding_of(made, normalisation="standard"))
    assert encoded.missing().tolist() == [[True], [True]]
    assert encoded.dense().tolist() == [[0.0], [0.0]]


@pytest.mark.parametrize("dtype", ["int64", "uint64", "float64"])
def test_large_integers_keep_their_differences(dtype):
    first = 2**53 - 1001
    made = events_of(x=np.arange(first, first + 1001).astype(dtype))
    encoded = encode(made, encoding_of(made))
    expected = (np.arange(1001) * (1 / 1000.0)).astype(np.float32)
    np.testing.assert_array_equal(encoded.dense()[:, 0], expected)
    assert np.unique(encoded.dense()).size == 1001


@pytest.mark.parametrize("dtype", [f"{k}{n}" for k in ("int", "uint") for n in (8, 16, 32, 64)])
def test_integers_at_the_ends_of_their_type_come_back(dtype):
    limits = np.iinfo(dtype)
    made = events_of(x=np.array([limits.min, limits.max], dtype=dtype))
    encoding = encoding_of(made)
    encoded = encode(made, encoding)
    assert encoded.dense().tolist() == [[0.0], [1.0]]
    if limits.bits > 16:  # those in between would not come back
        with pytest.raises(EncodeError, match=r"whole numbers of x \(steps of (256|1.1e\+12)\)"):
            decode(encoded.dense(), encoded.missing(), encoding)
        return
    back = decode(encoded.dense(), encoded.missing(), encoding)["x"]
    assert back.type.content.primitive == dtype
    assert float(back[0]) == float(limits.min)
    assert float(back[1]) == float(limits.max)


@given(st.integers(-(2**40), 2**40), st.integers(1, 2**26), st.data())
@settings(deadline=None)
def test_whole_numbers_come_back_exactly_or_not_at_all(low, span, data):
    inside = st.lists(st.integers(low, low + span), max_size=20)
    values = np.array([low, low + span, *data.draw(inside)], dtype=np.int64)
    made = events_of(x=values)
    how = data.draw(st.sampled_from(["minmax", "standard", "robust", "none"]))
    encoding = encoding_of(made, normalisation=how)
    encoded = encode(made, encoding)
    try:
        back = decode(encoded.dense(), encoded.missing(), encoding)
    except EncodeError:
        assert span >= 2**24 or how != "minmax"
        return
    np.testing.assert_array_equal(back["x"], values)


def test_a_word_of_flags_is_not_decoded_and_offsets_of_identifiers_are():
    flags = events_of(flags=np.array([0, 2**29 + 1, 2**30 - 1], dtype=np.int32))
    with pytest.raises(EncodeError, match=r"flags \(steps of 64\)"):
        decode(*_rows(flags), encoding_of(flags))
    numbers = np.array([350_000_000, 350_000_001, 350_100_000], dtype=np.uint32)
    runs = events_of(run=numbers)
    np.testing.assert_array_equal(decode(*_rows(runs), encoding_of(runs))["run"], numbers)


def _rows(events):
    encoded = encode(events, encoding_of(events))
    return encoded.dense(), encoded.missing()


@given(events(), st.permutations(BRANCHES))
@num_examples(40)
def test_columns_do_not_depend_on_the_order_of_branches(events, order):
    turned = replace(
        events,
        branches=tuple(order),
        contents={branch.name: events.contents[branch.name] for branch in order},
    )
    expected, found = (encode(e, encoding_of(e)) for e in (events, turned))
    assert found.layout == expected.layout
    assert found.dense().tobytes() == expected.dense().tobytes()


def test_columns_are_flat_branches_and_then_padded_ones_by_name():
    muons = ak.Array([[1.0]])[:, :0]
    made = events_of(z=[1.0], Jet_b=[[1.0, 2.0]], a=[1.0], Jet_a=[[1, 2]], Muon_a=muons)
    layout = encoding_of(made).layout
    assert layout.columns() == ["a", "z", "Jet_a[0]", "Jet_a[1]", "Jet_b[0]", "Jet_b[1]"]
    assert layout.num_columns == 6
    names = [layout.branches[i] for i in layout.branch_of_columns()]
    assert names == ["a", "z", "Jet_a", "Jet_a", "Jet_b", "Jet_b"]
    assert [layout.columns()[i].split("[")[0] for i in layout.first_columns[:2]] == [
        "Jet_a",
        "Jet_b",
    ]


@pytest.mark.parametrize(
    "other",
    [
        events_of(Jet_y=[[1.0]]),
        events_of(x=[[1.0]], Jet_y=[[1.0]]),
        events_of(x=[1.0], Jet_y=[1.0]),
        events_of(x=[1.0], Muon_y=[[1.0]]),
    ],
    ids=["absent", "jagged", "flat", "another collection"],
)
def test_events_that_do_not_fit_name_the_branch(other):
    encoding = encoding_of(events_of(x=[1.0, 2.0], Jet_y=[[1.0], [2.0]]))
    with pytest.raises(EncodeError, match="branch") as caught:
        encode(other, encoding)
    assert caught.value.branch in ("x", "Jet_y")


@pytest.mark.parametrize(
    "option",
    [{"normalisation": "minmaz"}, {"out_of_range": "clap"}, {"out_of_range": {"x": "clap"}}],
)
def test_an_unknown_option_is_an_error_and_not_the_default(option):
    specs = measure(events_of(x=[1.0, 2.0]), sample="s")
    with pytest.raises(EncodeError, match="expected"):
        Encoding.from_specs(specs, **option)


def test_branches_that_the_encoding_does_not_know_are_left_out():
    encoding = encoding_of(events_of(x=[1.0, 2.0]))
    encoded = encode(events_of(more=[[1]], x=[2.0]), encoding)
    assert encoded.dense().tolist() == [[1.0]]


def test_packed_events_are_smaller_than_their_dense_rows(cms_events):
    encoded = encode(cms_events, encoding_of(cms_events))
    assert encoded.nbytes < encoded.dense().nbytes


def test_counts_add_up():
    a = EncodeCounts({"x": 1}, {"y": 2}, {"Jet": 3})
    b = EncodeCounts({"x": 4}, {}, {"Muon": 5})
    assert a + b == EncodeCounts({"x": 5}, {"y": 2}, {"Jet": 3, "Muon": 5})
    assert a + EncodeCounts() == a
