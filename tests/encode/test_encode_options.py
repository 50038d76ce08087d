"""Widths, order of objects and normalisation, by branch and collection."""

from dataclasses import replace
from fnmatch import fnmatch
from itertools import pairwise

import awkward as ak
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from strategies import (
    encode_options,
    encoding_of,
    events,
    num_examples,
    part_of,
    sorted_by_python,
    split_events,
)

from mlaas4hep_dask.encode import EncodeCounts, Encoding, decode, encode
from mlaas4hep_dask.encode.encoding import transforms_of
from mlaas4hep_dask.encode.order import sort_objects
from mlaas4hep_dask.encode.precision import inexact_branches
from mlaas4hep_dask.errors import EncodeError
from mlaas4hep_dask.events import Events
from mlaas4hep_dask.events.events import offsets_of
from mlaas4hep_dask.formulas import NAMES
from mlaas4hep_dask.specs import Specs
from mlaas4hep_dask.specs.measure import measure
from mlaas4hep_dask.specs.specs import merge_all


def events_of(**fields):
    return Events.from_awkward(ak.Array(fields))


def by_plain_numpy(values, how):
    """What a branch with these values becomes, NaN where missing, by NumPy on all values."""
    values = values.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        if how.startswith("log"):
            values = np.where(values > 0, np.log(values), np.nan)
        elif how.startswith("symlog"):
            values = np.sign(values) * np.log1p(np.abs(values))
    finite = values[np.isfinite(values)]
    values = np.where(np.isfinite(values), values, np.nan)
    rest = how.rpartition("-")[2]
    if finite.size == 0 or rest in ("none", "log", "symlog"):
        return values
    if finite.min() == finite.max():
        return values - finite.min()
    if rest == "minmax":
        return (values - finite.min()) / (finite.max() - finite.min())
    if rest == "standard":
        return (values - finite.mean()) / finite.std()
    first, median, third = np.quantile(finite, [0.25, 0.5, 0.75], method="inverted_cdf")
    return (values - median) / (third - first if third > first else 1.0)


@pytest.mark.parametrize("how", [how for how in NAMES if how != "auto"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int16", "bool"])
def test_every_normalisation_equals_that_of_plain_numpy(how, dtype):
    values = (np.random.default_rng(1).standard_cauchy(2_000) * 20).clip(-3e4, 3e4).astype(dtype)
    if dtype.startswith("float"):
        values[:3] = [np.nan, np.inf, -np.inf]
    made = events_of(x=values)
    encoded = encode(made, encoding_of(made, normalisation=how))
    expected = by_plain_numpy(values, how)
    np.testing.assert_array_equal(encoded.missing()[:, 0], np.isnan(expected))
    found, expected = encoded.dense()[:, 0], np.nan_to_num(expected)
    np.testing.assert_allclose(found, expected, rtol=2e-7, atol=2e-7)
    assert encoded.counts.not_finite.get("x", 0) == encoded.missing().sum()
    assert not encoded.counts.out_of_range


@pytest.mark.slow
@given(st.data())
@num_examples(150)
def test_decoding_gives_back_what_was_kept_with_any_options(data):
    made = data.draw(events())
    options = data.draw(encode_options(made))
    encoding = encoding_of(made, **options)
    assume(not inexact_branches(encoding))  # such as of 2^24, which decoding refuses
    encoded = encode(made, encoding)
    back = decode(
        encoded.dense(), encoded.missing(), encoding, multiplicities=encoded.multiplicities()
    )
    array = sorted_by_python(made, options["sort"]).to_awkward()
    widths = encoding.layout.collection_widths
    for branch, scaling in zip(encoding.branches, encoding.scalings, strict=True):
        found, expected = back[branch.name], array[branch.name]
        if branch.collection is not None:
            expected = expected[:, : widths[branch.collection]]
            assert ak.num(found).to_list() == ak.num(expected).to_list()
            found, expected = ak.flatten(found), ak.flatten(expected)
        found = ak.to_numpy(found).astype(np.float64)
        expected = ak.to_numpy(expected).astype(np.float64)
        is_missing = scaling.is_missing(expected)
        if branch.dtype.startswith("float") or is_missing.any():
            np.testing.assert_array_equal(np.isnan(found), is_missing)
        found, expected = found[~is_missing], expected[~is_missing]
        # One rounding to float32 of the encoded value, and one to the branch's own dtype.
        before, after = forward(expected, scaling), forward(found, scaling)
        smallest = 3e-45 + 1e-15 * abs(scaling.shift * scaling.scale)  # float32 is subnormal
        is_near = abs(after - before) <= 2.0**-23 * np.abs(before) + smallest
        is_floating = branch.dtype.startswith("float")
        own = 4 * np.finfo(branch.dtype).eps if is_floating else 1e-15
        is_near |= abs(found - expected) <= own * np.abs(expected) + (
            1e-300 if is_floating else 0.5
        )
        assert is_near.all(), branch.name


@given(st.data())
@num_examples(60)
def test_each_branch_is_clipped_or_passed_as_if_all_were(data):
    known, other = data.draw(events(min_events=1, finite=True)), data.draw(events())
    options = data.draw(encode_options(known))
    rules = options.pop("out_of_range")
    encoding = encoding_of(known, **options, out_of_range=rules)
    encoded = encode(other, encoding)
    alike = {
        clip: encode(other, encoding_of(known, **options, out_of_range=word))
        for word, clip in (("pass", False), ("clip", True))
    }
    for branch, scaling in zip(encoding.branches, encoding.scalings, strict=True):
        pattern = next((p for p in rules if fnmatch(branch.name, p)), None)
        word = rules if isinstance(rules, str) else rules.get(pattern, "pass")
        assert scaling.clip == (word == "clip")
        np.testing.assert_array_equal(
            encoded.contents()[branch.name], alike[scaling.clip].contents()[branch.name]
        )
    assert encoded.counts == alike[True].counts == alike[False].counts


def forward(values, scaling):
    """Encoded values in float64."""
    if scaling.table is not None:
        return scaling.table.at(values)
    if scaling.transform == "log":
        values = np.log(values)
    elif scaling.transform == "symlog":
        values = np.sign(values) * np.log1p(np.abs(values))
    return (values - scaling.shift) * scaling.scale


@given(st.data())
@num_examples(60)
def test_parts_are_encoded_as_the_whole_is_with_any_options(data):
    whole, parts = data.draw(split_events())
    options = data.draw(encode_options(whole))
    encoding = encoding_of(whole, **options)
    expected = encode(whole, encoding)
    encoded = [encode(part, encoding) for part in parts]
    for method in ("dense", "missing"):
        found = np.concatenate([getattr(part, method)() for part in encoded])
        assert found.tobytes() == getattr(expected, method)().tobytes()
    assert sum((part.counts for part in encoded), EncodeCounts()) == expected.counts
    specs = measure(whole, sample="s", transforms=transforms_of(options["normalisation"], ALL))
    assert EncodeCounts.from_specs(specs, encoding) == expected.counts


ALL = ["met", "mass", "run", "trigger", "Jet_pt", "Jet_id", "Muon_pt"]


@given(split_events(), st.sampled_from(["log", "symlog"]))
@num_examples(60)
def test_moments_of_logarithms_merge_and_travel_as_text(split, transform):
    whole, parts = split
    transforms = dict.fromkeys(ALL, transform)
    merged = merge_all(measure(part, sample="s", transforms=transforms) for part in parts)
    expected = measure(whole, sample="s", transforms=transforms)
    for name, entry in expected.branches.items():
        found, wanted = merged.branches[name].transformed[transform], entry.transformed[transform]
        assert found[:2] == wanted[:2]
        assert (found.min, found.max, found.num_finite) == (
            wanted.min,
            wanted.max,
            wanted.num_finite,
        )
        np.testing.assert_allclose(found.mean, wanted.mean, rtol=1e-9, atol=1e-9)
    assert Specs.from_json(expected.to_json()) == expected


def test_real_files_are_encoded_bit_by_bit_alike_by_logarithms_whatever_the_partitions(cms_events):
    names = [branch.name for branch in cms_events.branches]
    normalisation = {"*_P[xyz]": "symlog-standard", "*_E": "log-robust", "*": "standard"}
    transforms = transforms_of(normalisation, names)
    assert set(transforms.values()) == {"log", "symlog"}
    rows = set()
    for num_parts in (1, 3, 50):
        edges = np.linspace(0, len(cms_events), num_parts + 1).astype(int)
        parts = [part_of(cms_events, a, b) for a, b in pairwise(edges)]
        specs = merge_all(
            measure(
                part,
                sample="s",
                ids=np.stack([np.zeros(len(part)), np.arange(a, a + len(part))], 1).astype("u8"),
                transforms=transforms,
            )
            for part, a in zip(parts, edges, strict=False)
        )
        encoding = Encoding.from_specs(specs, normalisation=normalisation, sort={"Jet": "-Jet_E"})
        rows.add(np.concatenate([encode(part, encoding).dense() for part in parts]).tobytes())
    assert len(rows) == 1


def test_the_first_pattern_that_matches_holds_and_auto_where_none_does():
    made = events_of(a_pt=[1.0, 5.0], b_pt=[1.0, 5.0], c=[3.0, 3.0])
    rules = {"a_*": "none", "*_pt": {"shift": 1.0, "scale": 2.0}}
    for normalisation in (rules, [{pattern: how} for pattern, how in rules.items()]):
        x = encode(made, encoding_of(made, normalisation=normalisation)).dense()
        assert x.tolist() == [[1.0, 0.0, 0.0], [5.0, 8.0, 0.0]]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (
            {"normalisation": {"jet_pt": "none"}},
            "'jet_pt' matches no branch; did you mean 'Jet_pt'",
        ),
        (
            {"normalisation": {"*": "none", "x": "minmax"}},
            "'x' matches no branch that earlier",
        ),
        ({"normalisation": {"x": "log"}}, "hold no statistics of the log of branch 'x'; measure"),
        ({"normalisation": "log-max"}, "normalisation is 'log-max'; expected one of auto, minmax"),
        ({"normalisation": {"x": {"shift": 1}}}, "of 'x': expected numbers for shift"),
        ({"normalisation": {"x": {"shift": 1, "scale": 0}}}, "scale is not 0"),
        ({"normalisation": {"x": {"x": [0, 0], "y": [0, 1]}}}, "the x of a table ascend"),
        ({"normalisation": {"x": {"x": [0, 1, 2], "y": [0, 1, 1]}}}, "ascend or descend"),
        ({"normalisation": {"x": {"x": [0], "y": [0]}}}, "at least two of each"),
        ({"normalisation": {"x": {"x": [0, 1], "y": [0, float("nan")]}}}, "are finite"),
        ({"normalisation": {"x": {"shift": 0, "scale": 1e300}}}, "does not fit into float32"),
        ({"width": {"Jets": 3}}, "pattern 'Jets' matches no collection; did you mean 'Jet'"),
        ({"width": {"quantile": 0}}, "expected 'max', a number of objects, or a quantile"),
        ({"width": -1}, "width is -1"),
        ({"sort": {"jet": "Jet_pt"}}, "no input is in a collection 'jet'; did you mean 'Jet'"),
        ({"sort": {"Jet": "-Jet_p"}}, "'Jet_p' is not in collection 'Jet'; did you mean 'Jet_pt'"),
        ({"sort": {"Jet": "x"}}, "branch 'x' is not in collection 'Jet'"),
    ],
)
def test_an_option_that_does_not_fit_names_the_nearest(option, message):
    specs = measure(events_of(x=[1.0, 200.0], Jet_pt=[[2.0], [3.0, 1.0]]), sample="s")
    with pytest.raises(EncodeError, match=message):
        Encoding.from_specs(specs, **option)


def test_widths_hold_a_quantile_of_the_events_exactly():
    counts = [1] * 90 + [2] * 9 + [7]
    made = events_of(Jet_pt=[[1.0] * n for n in counts], Muon_pt=[[]] * 99 + [[1.0]])
    for fraction, width in ((0.9, 1), (0.91, 2), (0.99, 2), (0.991, 7), (1, 7), (1e-9, 1)):
        encoded = encode(made, encoding_of(made, width={"Jet": {"quantile": fraction}}))
        assert encoded.layout.collection_widths == {"Jet": width, "Muon": 1}
        cut = sum(max(n - width, 0) for n in counts)
        assert encoded.counts.truncated == ({"Jet": cut} if cut else {})
    # A collection that most events lack keeps a column.
    layout = encoding_of(made, width={"quantile": 0.5}).layout
    assert layout.collection_widths == {"Jet": 1, "Muon": 1}


def test_cut_objects_take_no_room():
    made = events_of(Jet_pt=[[float(i) for i in range(1000)], [], [1.0]])
    encoded = encode(
        made, encoding_of(made, normalisation="minmax", width=2, sort={"Jet": "-Jet_pt"})
    )
    assert encoded.values.tolist() == [1.0, np.float32(998 / 999), np.float32(1 / 999)]
    assert encoded.dense().tolist() == [
        [1.0, np.float32(998 / 999)],
        [0, 0],
        [encoded.values[2], 0],
    ]
    assert encoded.counts.truncated == {"Jet": 998}


@given(events(), st.sampled_from(["Jet_pt", "Jet_id"]), st.booleans())
@num_examples(60)
def test_objects_are_sorted_as_python_sorts_them(made, key, descending):
    sort = {"Jet": f"-{key}" if descending else key}
    ordered = sorted_by_python(made, sort)
    found = encode(made, encoding_of(made, sort=sort, width={"Jet": 2}))
    expected = encode(ordered, encoding_of(ordered, width={"Jet": 2}))
    assert found.dense().tobytes() == expected.dense().tobytes()
    assert found.missing().tobytes() == expected.missing().tobytes()


@given(st.data())
@num_examples(60)
def test_long_lists_are_sorted_stably_with_nan_last(data):
    sizes = data.draw(st.lists(st.sampled_from([0, 1, 15, 16, 17, 100, 257]), max_size=4))
    offsets = offsets_of(np.array(sizes, dtype=np.int64))
    seed = data.draw(st.integers(0, 2**32))
    key = np.random.default_rng(seed).integers(-3, 4, offsets[-1]).astype(np.float32)
    key[key == 3] = np.nan
    for descending in (False, True):
        order = sort_objects(key, offsets, descending)
        for start, stop in pairwise(offsets):
            sign = -1 if descending else 1
            expected = start + np.argsort(sign * key[start:stop], kind="stable")  # NaN last
            np.testing.assert_array_equal(order[start:stop], expected)


def test_a_branch_that_is_no_input_can_be_sorted_by():
    made = events_of(Jet_pt=[[1.0, 3.0, 2.0]], Jet_eta=[[0.1, 0.3, 0.2]])
    kept = tuple(branch for branch in made.branches if branch.name == "Jet_eta")
    (key,) = (branch for branch in made.branches if branch.name == "Jet_pt")
    specs = measure(replace(made, branches=kept), sample="s")
    encoding = Encoding.from_specs(specs, sort={"Jet": "-Jet_pt"}, keys=[key], normalisation="none")
    assert encoding.branches == kept
    assert encoding.reads == (*kept, key)
    assert encode(made, encoding).dense().tolist() == [np.float32([0.3, 0.2, 0.1]).tolist()]
    with pytest.raises(EncodeError, match="branch 'Jet_pt' is absent") as caught:
        encode(replace(made, branches=kept), encoding)
    assert caught.value.branch == "Jet_pt"


def test_values_outside_the_specs_are_clipped_before_their_logarithm():
    made = events_of(x=[1.0, 100.0], y=[-1.0, 1.0])
    options = {"normalisation": {"x": "log-minmax", "y": {"x": [-1, 1], "y": [3, -1]}}}
    other = events_of(x=[0.5, 10.0, 1000.0, -2.0], y=[-2.0, 0.5, 1.5, np.nan])
    passed = encode(other, encoding_of(made, **options))
    np.testing.assert_allclose(passed.dense()[:, 0], [np.log10(0.5) / 2, 0.5, 1.5, 0], rtol=1e-6)
    assert passed.dense()[:, 1].tolist() == [5.0, 0.0, -2.0, 0.0]
    clipped = encode(other, encoding_of(made, **options, out_of_range="clip"))
    np.testing.assert_allclose(clipped.dense(), [[0, 3], [0.5, 0], [1, -1], [0, 0]], atol=1e-7)
    for encoded in (passed, clipped):
        assert encoded.counts == EncodeCounts({"x": 1, "y": 1}, {"x": 2, "y": 2})
        assert encoded.missing().tolist()[3] == [True, True]


def test_a_branch_without_any_logarithm_is_missing_and_later_values_count_as_outside():
    made = events_of(x=[-1.0, 0.0])
    encoding = encoding_of(made, normalisation="log-standard", out_of_range="clip")
    assert encode(made, encoding).missing().all()
    later = encode(events_of(x=[-3.0, 5.0]), encoding)
    assert later.dense().tolist() == [[0.0], [0.0]]
    assert later.missing().tolist() == [[True], [False]]
    assert later.counts == EncodeCounts({"x": 1}, {"x": 1})
