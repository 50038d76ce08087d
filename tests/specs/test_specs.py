import json
import math
from contextlib import suppress
from dataclasses import replace
from itertools import accumulate, pairwise

import awkward as ak
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import events, num_examples, part_of, split_events

from mlaas4hep_dask.errors import DataError, SpecsError
from mlaas4hep_dask.events import Branch, Events
from mlaas4hep_dask.events.events import concatenate, offsets_of, unit_in
from mlaas4hep_dask.events.runs import FEW
from mlaas4hep_dask.specs import SampleSpecs, Specs
from mlaas4hep_dask.specs.measure import measure, moments
from mlaas4hep_dask.specs.moments import EMPTY, Moments
from mlaas4hep_dask.specs.specs import merge, merge_all

EXACT = ("num_values", "num_nan", "num_posinf", "num_neginf", "min", "max")


def finite_of(events, name):
    values = events.contents[name].astype(np.float64)
    return values[np.isfinite(values)]


def assert_same(a, b, *, events):
    """Equal counts, extremes and histograms; means and variances up to rounding."""
    assert a.multiplicities == b.multiplicities
    assert a.branches.keys() == b.branches.keys()
    assert a.samples.keys() == b.samples.keys()
    for name, sample in a.samples.items():
        assert (sample.num_read, sample.num_selected) == (
            b.samples[name].num_read,
            b.samples[name].num_selected,
        )
        assert sample.sum_weights == pytest.approx(b.samples[name].sum_weights)
    for name, entry in a.branches.items():
        other = b.branches[name]
        assert entry.branch == other.branch
        for key in EXACT:
            assert getattr(entry.moments, key) == getattr(other.moments, key), (name, key)
        values = finite_of(events, name)
        if values.size:
            largest = np.abs(values).max()
            assert entry.mean == pytest.approx(other.mean, rel=1e-12, abs=1e-13 * largest)
            assert entry.variance == pytest.approx(other.variance, rel=1e-9, abs=1e-13 * largest**2)


@pytest.mark.slow
@given(events(), events(), events())
@num_examples(60)
def test_merge_is_associative_and_commutative_and_has_an_identity(a, b, c):
    everything, both = concatenate([a, b, c]), concatenate([a, b])
    a, b, c = (measure(part, sample="s") for part in (a, b, c))
    assert_same(merge(merge(a, b), c), merge(a, merge(b, c)), events=everything)
    assert_same(merge(a, b), merge(b, a), events=both)
    assert merge(a, Specs()) == a
    assert merge(Specs(), a) == a


@given(split_events())
@num_examples(60)
def test_specs_of_parts_merge_to_the_specs_of_the_whole(split):
    whole, parts = split
    merged = merge_all([measure(part, sample="s") for part in parts])
    assert_same(merged, measure(whole, sample="s"), events=whole)


@given(st.permutations(range(4)), split_events())
@num_examples(30)
def test_merge_does_not_depend_on_order(order, split):
    whole, parts = split
    parts = [measure(part, sample=f"s{i % 2}") for i, part in enumerate(parts)]
    shuffled = [parts[i] for i in order if i < len(parts)] + parts[4:]
    assert_same(merge_all(parts), merge_all(shuffled), events=whole)


@given(events())
@num_examples(60)
def test_infinities_and_nan_are_counted_and_never_reach_the_moments(events):
    specs = measure(events, sample="s")
    for name, entry in specs.branches.items():
        values = events.contents[name].astype(np.float64)
        finite = finite_of(events, name)
        found = entry.moments
        assert found.num_values == values.size
        assert found.num_nan == np.isnan(values).sum()
        assert found.num_posinf == (values == np.inf).sum()
        assert found.num_neginf == (values == -np.inf).sum()
        assert found.num_finite == finite.size
        if finite.size == 0:
            assert (entry.min, entry.max, entry.mean, entry.variance) == (None, None, None, None)
            continue
        assert (entry.min, entry.max) == (finite.min(), finite.max())
        largest = np.abs(finite).max()
        assert entry.mean == pytest.approx(math.fsum(finite) / finite.size, abs=1e-13 * largest)
        assert entry.variance == pytest.approx(finite.var(), rel=1e-9, abs=1e-13 * largest**2)
        assert entry.is_constant == (len(set(finite.tolist())) == 1)


@pytest.mark.parametrize("dtype", [f"{k}{n}" for k in ("int", "uint") for n in (8, 16, 32, 64)])
def test_extremes_of_integers_are_those_of_their_type(dtype):
    limits = np.iinfo(dtype)
    found = moments(np.array([limits.min, limits.max], dtype=dtype))
    assert (found.min, found.max) == (float(limits.min), float(limits.max))
    assert found.mean == pytest.approx((float(limits.min) + float(limits.max)) / 2, abs=1)


@pytest.mark.parametrize(
    "values",
    [[-1.7e308, 1.7e308], [0.0, 1.7976931348623157e308], [1e200, -1e200, 3.0], [1.7e308] * 9],
)
def test_values_at_the_end_of_float64_give_specs_that_can_be_written(values):
    whole = measure(Events.from_awkward(ak.Array({"x": values})), sample="s")
    parts = [measure(Events.from_awkward(ak.Array({"x": [v]})), sample="s") for v in values]
    for specs in (whole, merge_all(parts)):
        found = Specs.from_json(specs.to_json()).branches["x"]
        assert (found.min, found.max) == (min(values), max(values))
        assert found.mean == pytest.approx(
            sum(v / len(values) for v in values), abs=1e-13 * max(values)
        )
        assert math.isfinite(found.variance)


@pytest.mark.parametrize("large", [1e8, 1e12])
def test_the_variance_survives_a_mean_that_is_much_larger(large):
    values = large + np.arange(1000) % 2
    parts = [moments(part) for part in np.split(values, [1, 10, 500])]
    specs = merge_all(
        Specs({"x": replace(BRANCH_SPECS, moments=part)}, {}, {}) for part in parts
    ).branches["x"]
    assert specs.variance == pytest.approx(0.25, rel=1e-6)
    assert moments(values).squares / 1000 == pytest.approx(0.25, rel=1e-9)


BRANCH_SPECS = measure(Events.from_awkward(ak.Array({"x": [0.0]})), sample="s").branches["x"]


def test_specs_of_real_files_equal_a_plain_awkward_computation(cms_parts, cms_events):
    specs = merge_all(
        measure(part, sample=sample) for sample, parts in cms_parts.items() for part in parts
    )
    array = cms_events.to_awkward()
    assert set(specs.branches) == set(array.fields)
    assert len(array.fields) == 51
    for name, entry in specs.branches.items():
        jagged = array[name].ndim == 2
        values = ak.to_numpy(ak.flatten(array[name]) if jagged else array[name])
        assert entry.branch.kind == ("jagged" if jagged else "flat")
        assert entry.branch.dtype == values.dtype.name
        exact = values.astype(np.float64)
        assert entry.moments.num_values == len(values)
        assert entry.moments.num_finite == len(values)  # these files hold neither NaN nor inf
        assert (entry.min, entry.max) == (exact.min(), exact.max())
        assert entry.mean == pytest.approx(exact.mean(), rel=1e-12, abs=1e-12)
        assert entry.variance == pytest.approx(exact.var(), rel=1e-11, abs=1e-20)
        if jagged:
            counts = np.bincount(ak.to_numpy(ak.num(array[name])))
            assert specs.multiplicities[entry.branch.collection] == tuple(counts)
            assert specs.max_multiplicity(entry.branch.collection) == len(counts) - 1
    assert {name: s.num_selected for name, s in specs.samples.items()} == {
        sample: sum(map(len, parts)) for sample, parts in cms_parts.items()
    }
    assert specs.num_events == len(array)


def test_real_files_have_the_specs_of_one_partition_whatever_the_partitions(cms_events):
    one = measure(cms_events, sample="s")
    for num_parts in (2, 7, 100):
        edges = np.linspace(0, len(cms_events), num_parts + 1).astype(int)
        parts = [part_of(cms_events, a, b) for a, b in pairwise(edges)]
        assert_same(merge_all(measure(p, sample="s") for p in parts), one, events=cms_events)


@given(events())
@num_examples(60)
def test_json_gives_back_the_same_specs_and_never_holds_nan(events):
    specs = measure(events, sample="ttH")
    counts = replace(specs.samples["ttH"], num_read=99, sum_weights=0.1)
    specs = replace(specs, samples={"ttH": counts}).with_provenance(
        config="ab", files={"a.root": "uuid"}, versions={"numpy": "2"}
    )

    def refuse(constant):
        raise AssertionError(constant)

    text = specs.to_json()
    json.loads(text, parse_constant=refuse)
    back = Specs.from_json(text)
    assert back == specs
    assert back.to_json() == text


def test_the_order_of_branches_does_not_change_the_file(cms_events):
    specs = measure(cms_events, sample="s")
    turned = replace(specs, branches=dict(reversed([*specs.branches.items()])))
    assert turned.to_json() == specs.to_json()


def test_a_file_holds_one_branch_per_line_so_that_two_can_be_compared(cms_events, tmp_path):
    specs = measure(cms_events, sample="s")
    path = tmp_path / "specs.json"
    path.write_text(specs.to_json(), encoding="utf-8")
    assert Specs.read(path) == specs
    lines = path.read_text(encoding="utf-8").splitlines()
    for name in specs.branches:
        assert sum(line.startswith(f'  "{name}": {{"kind"') for line in lines) == 1
        assert sum(line.startswith(f'  "{name}": ') for line in lines) == 2  # and its draw
    assert name in specs._repr_html_()


GOOD = measure(Events.from_awkward(ak.Array({"x": [1.0], "Jet_y": [[1, 2]]})), sample="s").to_json()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        "{}",
        '"text"',
        GOOD[:-3],
        GOOD.replace('"version": 2', '"version": 3'),
        GOOD.replace("mlaas4hep_dask/specs", "other"),
        GOOD.replace('"dtype"', '"type"'),
        GOOD.replace('"min": 1.0', '"min": NaN'),
        GOOD.replace('"max": 1.0', '"max": Infinity'),
        GOOD.replace('"max": 1.0', '"max": 1e999'),
        GOOD.replace('"mean": 1.0', '"mean": NaN'),
        GOOD.replace('"mean": 1.0', '"mean": null'),
        GOOD.replace('"squares": 0.0', '"squares": Infinity'),
        GOOD.replace('"num_values": 1', '"num_values": "1"'),
        GOOD.replace('"num_read"', '"read"'),
        GOOD.replace('"samples"', '"sample"'),
        GOOD.replace('"branches"', '"branch"'),
        GOOD.replace("[0, 0, 1]", "3"),
        GOOD.replace("[0, 0, 1]", "[0, null, 1]"),
        GOOD.replace('"Jet": [0, 0, 1]', '"Jets": [0, 0, 1]'),
    ],
)
def test_a_bad_file_is_a_specs_error_that_names_it(text, tmp_path):
    assert text != GOOD
    path = tmp_path / "specs.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SpecsError, match=r"specs\.json") as caught:
        Specs.read(path)
    assert caught.value.file == str(path)


@given(st.integers(0, len(GOOD) - 1), st.characters(codec="ascii"))
@num_examples(300)
def test_one_altered_character_gives_specs_or_a_specs_error(place, character):
    with suppress(SpecsError):
        Specs.from_json(GOOD[:place] + character + GOOD[place + 1 :]).to_json()


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_file_that_cannot_be_read_is_a_specs_error(content, tmp_path):
    path = tmp_path / "specs.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SpecsError, match="cannot be read"):
        Specs.read(path)


@pytest.mark.parametrize(
    "other",
    [{"x": [1.0]}, {"x": [1.0], "y": [1]}, {"x": [1.0], "y": [[1.0]]}],
    ids=["missing", "other type", "jagged"],
)
def test_specs_of_different_branches_do_not_merge(other):
    a = measure(Events.from_awkward(ak.Array({"x": [1.0], "y": [1.0]})), sample="s")
    b = measure(Events.from_awkward(ak.Array(other)), sample="s")
    for pair in ((a, b), (b, a)):
        with pytest.raises(SpecsError, match="y") as caught:
            merge(*pair)
        assert caught.value.branch == "y"


def test_specs_of_different_configurations_do_not_merge():
    specs = measure(Events.from_awkward(ak.Array({"x": [1.0]})), sample="s")
    with pytest.raises(SpecsError, match="config"):
        merge(specs.with_provenance(config="a"), specs.with_provenance(config="b"))


def test_merging_collects_the_files_of_both():
    a = Specs(provenance={"files": {"b.root": "2"}})
    b = Specs(provenance={"files": {"a.root": "1"}})
    assert merge(a, b).provenance == {"files": {"a.root": "1", "b.root": "2"}}


def test_samples_add_up():
    assert SampleSpecs(5, 3, 1.5) + SampleSpecs(1, 1, 0.25) == SampleSpecs(6, 4, 1.75)
    assert SampleSpecs() + SampleSpecs(1, 1, 0.25) == SampleSpecs(1, 1, 0.25)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(st.data())
def test_moments_of_floats_are_those_of_numpy(dtype, data):
    width = np.dtype(dtype).itemsize * 8
    numbers = st.floats(-(2.0**100), 2.0**100, width=width) | st.sampled_from([-0.0, 1.0, -1.0])
    values = np.array(data.draw(st.lists(numbers, min_size=1, max_size=40)), dtype=dtype)
    repeats, shift = data.draw(st.integers(1, 90)), data.draw(st.sampled_from([0.0, 3.0, 1e6]))
    values = np.sort(np.repeat(values, repeats)) + dtype(shift)
    found, exact = moments(values), values.astype(np.float64)
    assert (found.min, found.max) == (exact.min(), exact.max())
    largest = np.abs(exact).max()
    assert found.mean == pytest.approx(exact.mean(), rel=1e-12, abs=1e-13 * largest)
    squares = np.square(exact - exact.mean()).sum()
    assert found.squares == pytest.approx(squares, rel=1e-9, abs=1e-26 * largest**2 * values.size)


def test_moments_of_nothing_are_those_of_the_identity():
    assert moments(np.zeros(0, np.float32)) == EMPTY
    assert moments(np.array([np.nan, -np.inf])) == Moments(2, 1, 0, 1, None, None, 0.0, 0.0)


@given(events())
@num_examples(40)
def test_events_become_awkward_arrays_and_back(events):
    array = events.to_awkward()
    assert len(array) == len(events)
    back = Events.from_awkward(array)
    for name, content in events.contents.items():
        np.testing.assert_array_equal(back.contents[name], content)
        assert back.contents[name].dtype == content.dtype
    for branch in back.branches:
        if branch.collection is not None:
            counts = ak.to_numpy(ak.num(array[branch.name]))
            np.testing.assert_array_equal(np.diff(back.offsets[branch.collection]), counts)


@given(split_events())
@num_examples(40)
def test_concatenated_parts_are_the_whole(split):
    whole, parts = split
    back = concatenate(parts)
    assert len(back) == len(whole)
    for name, content in whole.contents.items():
        np.testing.assert_array_equal(back.contents[name], content)
    for name, offsets in whole.offsets.items():
        np.testing.assert_array_equal(back.offsets[name], offsets)


@pytest.mark.parametrize(
    "fields",
    [
        {"Jet_pt": [[1.0, 2.0], []], "Jet": [[1], [2]]},
        {"Jet": [[1], [2]], "Jet_pt": [[1.0, 2.0], []]},
        {"Jet_pt": [[1.0, 2.0], []], "Jet_area_x": [[1], [2]], "Jet": [[], [7]]},
    ],
)
def test_jagged_fields_of_unlike_multiplicity_stay_apart_whatever_their_names(fields):
    array = ak.Array(fields)
    assert Events.from_awkward(array).to_awkward().to_list() == array.to_list()


@pytest.mark.parametrize(
    "array",
    [
        ak.Array({"x": [[[1.0]], []]}),
        ak.Array({"x": ["text", "more"]}),
        ak.Array({"x": [b"text", b"more"]}),
        ak.Array({"x": [["text"], ["more"]]}),
        ak.Array({"x": [{"y": 1.0}, {"y": 2.0}]}),
        ak.Array({"x": [1.0, None]}),
        ak.Array({"x": [[1.0], [None]]}),
        ak.Array({"x": [1.0 + 2.0j, 0.0j]}),
        ak.Array({"x": np.array(["2024-01-01"] * 2, dtype="M8[s]")}),
    ],
)
def test_a_field_that_is_no_number_and_no_list_of_numbers_is_refused(array):
    with pytest.raises(DataError, match="'x'") as caught:
        Events.from_awkward(array)
    assert caught.value.branch == "x"


@pytest.mark.parametrize(
    ("title", "unit"),
    [("p_T [GeV]", "GeV"), ("pt", None), ("Jet_pt[nJet]/F", None), ("pt [ MeV/c^2 ] ", "MeV/c^2")],
)
def test_a_unit_is_what_stands_in_brackets_at_the_end(title, unit):
    assert unit_in(title) == unit


def test_branches_of_equal_shape_may_differ_in_name_and_unit():
    jet = Branch("Jet_pt", "jagged", "float32", "Jet", "GeV")
    assert jet.same_shape(Branch("Jet_eta", "jagged", "float32", "Jet"))
    assert not jet.same_shape(Branch("Jet_pt", "jagged", "float64", "Jet"))
    assert not jet.same_shape(Branch("Jet_pt", "jagged", "float32", "Muon"))
    assert not jet.same_shape(Branch("Jet_pt", "flat", "float32"))


def test_the_sum_of_weights_may_be_negative():
    specs = Specs(samples={"s": SampleSpecs(2, 2, -0.5)})
    assert Specs.from_json(specs.to_json()).samples["s"] == SampleSpecs(2, 2, -0.5)


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint16", "int32", ">i4", "uint64", "int64"])
@pytest.mark.parametrize("size", [0, 1, FEW, FEW + 1])
def test_offsets_are_sums_of_multiplicities(dtype, size):
    counts = np.random.default_rng(size).integers(0, 2, 2 * size).astype(dtype)[::2]
    counts.flags.writeable = False
    offsets = offsets_of(counts)
    assert offsets.dtype == np.int64
    assert offsets.tolist() == [0, *accumulate(map(int, counts))]
