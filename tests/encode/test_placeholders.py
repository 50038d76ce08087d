"""Where placeholders go: what absence tells of the classes decides."""

import io
import warnings
from itertools import pairwise

import awkward as ak
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import num_examples

from mlaas4hep_dask.encode import Encoding, decode, encode
from mlaas4hep_dask.encode.placeholders import roles_of, set_aside
from mlaas4hep_dask.encode.split import event_ids
from mlaas4hep_dask.errors import EncodeError
from mlaas4hep_dask.events import Events
from mlaas4hep_dask.events.events import between
from mlaas4hep_dask.export import to_torchscript
from mlaas4hep_dask.specs import Specs
from mlaas4hep_dask.specs.measure import measure
from mlaas4hep_dask.specs.specs import merge_all

NUM = 4_000
GONE = -999.0
rng = np.random.default_rng(31)
LABELS = (rng.random(NUM) < 0.4).astype(np.uint8)


def beside(values, is_there, placeholder=GONE):
    return np.where(is_there, values, placeholder)


def columns():
    """One branch, or several together, for each thing that absence may tell."""
    draw = np.random.default_rng(32)
    anyhow = draw.random(NUM) < 0.7  # tells nothing
    second = draw.random(NUM) < 0.4 + 0.25 * LABELS
    third = draw.random(NUM) < 0.5 + 0.15 * LABELS
    failed = draw.random(NUM) < 0.2 - 0.12 * LABELS
    alone = draw.random(NUM) < 0.5 + 0.2 * LABELS
    return {
        "plain": draw.normal(LABELS, 1),
        "ring_angle": beside(draw.normal(25, 2, NUM), anyhow, 999.0),
        "ring_hits": beside(draw.normal(30, 4, NUM), anyhow).astype(np.float32),
        "j2_phi": beside(draw.uniform(-np.pi, np.pi, NUM), second),
        "j2_pt": beside(30 + draw.exponential(20 + 10 * LABELS), second),
        "j2_btag": beside(draw.beta(1 + 2 * LABELS, 2), second),
        "calo_width": beside(draw.gamma(4, 0.4 + 0.3 * LABELS), third),
        "calo_energy": beside(draw.normal(5 - 3 * LABELS, 1), third),
        "mass": beside(draw.normal(90 + 35 * LABELS, 12), ~failed),
        "hits": beside(draw.normal(0, 1, NUM), alone),
    }


EXPECTED = {
    "ring_angle": "missing",
    "ring_hits": "missing",
    "j2_phi": "far",
    "j2_pt": "missing",
    "j2_btag": "missing",
    "calo_width": "apart",
    "calo_energy": "missing",
    "hits": "far",
}  # and the mass stays beside the others
EVENTS = Events.from_awkward(ak.Array(columns()))


def specs_of(events=EVENTS, classes=LABELS, **more):
    return measure(events, sample="s", classes=classes, **more)


def rows_by_name(encoding, events=EVENTS):
    x = encode(events, encoding).dense()
    return dict(zip(encoding.columns(), x.T, strict=True))


def test_one_branch_tells_of_absence_and_none_does_where_the_classes_do_not_differ():
    assert roles_of(specs_of(), EVENTS.contents) == EXPECTED


def test_without_classes_placeholders_stay_beside_the_values():
    for classes in (None, np.zeros(NUM, np.uint8), np.full(NUM, 255, np.uint8)):
        assert roles_of(specs_of(classes=classes), EVENTS.contents) == {}
    few = np.zeros(NUM, np.uint8)
    few[:50] = 1
    assert roles_of(specs_of(classes=few), EVENTS.contents) == {}


def test_which_number_a_class_has_does_not_matter():
    assert roles_of(specs_of(classes=1 - LABELS), EVENTS.contents) == EXPECTED
    assert roles_of(specs_of(classes=7 + 100 * LABELS), EVENTS.contents) == EXPECTED


def test_one_class_of_many_is_enough_to_differ():
    others = np.where(LABELS == 1, 3, rng.integers(0, 3, NUM)).astype(np.uint8)
    found = roles_of(specs_of(classes=others), ["j2_phi", "j2_pt", "ring_angle"])
    assert found == {"j2_phi": "far", "j2_pt": "missing", "ring_angle": "missing"}


@given(st.lists(st.integers(0, NUM), max_size=4), st.randoms(use_true_random=False))
@num_examples(15)
def test_roles_and_classes_do_not_depend_on_partitions_or_their_order(cuts, random):
    ids = event_ids("6a1e0d2a-9c0b-11ef-8a4a-000000000000", 0, NUM)
    whole = specs_of(ids=ids)
    ends = sorted({0, NUM, *cuts})
    parts = [specs_of(between(EVENTS, a, b), LABELS[a:b], ids=ids[a:b]) for a, b in pairwise(ends)]
    random.shuffle(parts)
    merged = merge_all(parts)
    assert merged.in_order().draws == whole.in_order().draws
    assert Encoding.from_specs(merged) == Encoding.from_specs(whole)


def test_what_is_missing_is_0_and_masked_and_the_values_are_spread_as_without_it():
    encoding = Encoding.from_specs(specs_of())
    encoded = encode(EVENTS, encoding)
    mask = dict(zip(encoding.columns(), encoded.missing().T, strict=True))
    rows = rows_by_name(encoding)
    for name, role in EXPECTED.items():
        is_absent = abs(EVENTS.contents[name]) == 999
        np.testing.assert_array_equal(mask[name], is_absent & (role == "missing"))
        if role == "missing":
            assert not rows[name][is_absent].any()
            own = rows[name][~is_absent]
            assert abs(np.median(own)) < 0.05
            assert np.diff(np.quantile(own, [0.005, 0.995])) == pytest.approx(2 * 2.576, rel=0.1)
    assert encoded.counts.not_finite == {}  # nothing is lost: -999 comes back


def test_apart_leaves_room_and_far_makes_presence_itself_the_row():
    rows = rows_by_name(Encoding.from_specs(specs_of()))
    for name, role in EXPECTED.items():
        is_absent = EVENTS.contents[name] == GONE
        own, gone = rows[name][~is_absent], rows[name][is_absent]
        if role == "apart":
            assert abs(np.median(own)) < 0.05
            assert np.quantile(own, 0.005) - gone.max() == pytest.approx(4, abs=0.2)
        if role == "far":
            assert rows[name].mean() == pytest.approx(0, abs=0.01)
            assert rows[name].std() == pytest.approx(1, abs=0.01)
            assert own.min() - gone.max() > 1
            assert np.diff(np.quantile(own, [0.25, 0.75])) < 0.5


def test_every_role_is_told_in_words():
    encoding = Encoding.from_specs(specs_of())
    pairs = zip(encoding.branches, encoding.scalings, strict=True)
    told = {branch.name: scaling.about for branch, scaling in pairs}
    assert told["mass"] == "auto: linear"
    for name, role in EXPECTED.items():
        value = "999" if name == "ring_angle" else "-999"
        assert told[name].endswith(f", {value} {role}")


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("outliers", [[], [3e38], [-3e38], [1e7, -1e7]])
@pytest.mark.parametrize("name", EXPECTED)
def test_outliers_move_no_row_of_any_role(name, outliers, sign):
    values = sign * EVENTS.contents[name].astype(np.float64)
    hurt = Events.from_awkward(ak.Array({name: np.append(values, outliers)}))
    classes = np.append(LABELS, np.zeros(len(outliers), np.uint8))
    clean = Encoding.from_specs(specs_of(Events.from_awkward(ak.Array({name: values}))))
    rows = rows_by_name(Encoding.from_specs(specs_of(hurt, classes)), hurt)[name]
    before = rows_by_name(clean, between(hurt, 0, NUM))[name]
    assert abs(rows).max() < 40
    np.testing.assert_allclose(rows[:NUM], before, atol=0.35 * before.std())


def test_placeholders_come_back_from_rows_whatever_became_of_them():
    encoding = Encoding.from_specs(specs_of())
    encoded = encode(EVENTS, encoding)
    back = decode(encoded.dense(), encoded.missing(), encoding)
    for name, values in EVENTS.contents.items():
        found = ak.to_numpy(back[name])
        assert found.dtype == values.dtype
        is_absent = abs(values) == 999
        np.testing.assert_allclose(found[is_absent], values[is_absent], rtol=1e-6)
        np.testing.assert_allclose(found[~is_absent], values[~is_absent], rtol=1e-4, atol=1e-3)


def test_whole_numbers_and_objects_with_placeholders_come_back_in_their_own_type():
    draw = np.random.default_rng(33)
    counts = draw.integers(0, 4, NUM)
    num = int(counts.sum())
    there = draw.random(num) < 0.6
    jagged = {
        "Jet_hits": np.where(there, draw.integers(0, 200, num), -999).astype(np.int32),
        "Jet_pt": 30 + draw.exponential(20, num),
    }
    array = ak.Array({name: ak.unflatten(values, counts) for name, values in jagged.items()})
    events = Events.from_awkward(array)
    specs = specs_of(events)
    assert roles_of(specs, ["Jet_hits", "Jet_pt"]) == {"Jet_hits": "missing"}
    encoding = Encoding.from_specs(specs)
    encoded = encode(events, encoding)
    back = decode(
        encoded.dense(), encoded.missing(), encoding, multiplicities=encoded.multiplicities()
    )
    assert ak.to_numpy(ak.flatten(back.Jet_hits)).dtype == np.int32
    assert back.Jet_hits.to_list() == array.Jet_hits.to_list()


def test_a_branch_with_nan_too_gets_nan_back():
    values = EVENTS.contents["ring_angle"].copy()
    values[:10] = np.nan
    events = Events.from_awkward(ak.Array({"x": values}))
    encoding = Encoding.from_specs(specs_of(events))
    (scaling,) = encoding.scalings
    assert scaling.absent == 999
    encoded = encode(events, encoding)
    assert encoded.counts.not_finite == {"x": 10}
    back = ak.to_numpy(decode(encoded.dense(), encoded.missing(), encoding).x)
    np.testing.assert_array_equal(np.isnan(back), np.isnan(values) | (values == 999))


class Masked(torch.nn.Module):
    """Scores depend on which values are missing."""

    def forward(self, x, missing):
        return x.sum(dim=1) + 3 * missing.float().sum(dim=1)


def test_the_exported_network_takes_raw_placeholders_as_the_encoding_does():
    # -999.9 is no number of single precision: a client's is not the one that the file had
    given = np.where(EVENTS.contents["ring_hits"] == GONE, -999.9, EVENTS.contents["ring_hits"])
    array = {**EVENTS.contents, "ring_hits": given.astype(np.float32)}
    events = Events.from_awkward(ak.Array(array))
    encoding = Encoding.from_specs(specs_of(events))
    encoded = encode(events, encoding)
    x, missing = encoded.dense(), encoded.missing()
    content = to_torchscript(Masked(), encoding)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        model = torch.jit.load(io.BytesIO(content))
    assert missing.any()
    raw = np.stack([{**array, "ring_hits": given}[name] for name in encoding.columns()], axis=1)
    of_rows = model.score_encoded(torch.from_numpy(x), torch.from_numpy(missing))
    np.testing.assert_allclose(model(torch.from_numpy(raw)), of_rows, rtol=1e-5, atol=1e-6)


def test_a_value_is_named_missing_by_hand():
    how = {"shift": 25.0, "scale": 0.5, "missing": 999}
    encoding = Encoding.from_specs(
        specs_of(classes=None), normalisation=[{"ring_angle": how}, {"*": "auto"}]
    )
    rows = rows_by_name(encoding)["ring_angle"]
    values = EVENTS.contents["ring_angle"]
    np.testing.assert_allclose(rows, np.where(values == 999, 0, (values - 25) / 2), rtol=1e-6)
    for wrong in (np.nan, np.inf, "none"):
        with pytest.raises(EncodeError, match=r"missing|numbers"):
            Encoding.from_specs(specs_of(), normalisation={"ring_angle": {**how, "missing": wrong}})


def test_specs_keep_the_classes_in_a_file_and_those_of_earlier_versions_have_none():
    specs = specs_of()
    again = Specs.from_json(specs.to_json())
    assert again == specs
    assert Encoding.from_specs(again) == Encoding.from_specs(specs)
    without = specs_of(classes=None)
    assert '"classes"' not in without.to_json()
    earlier = Specs.from_json(without.to_json())
    assert earlier == without
    assert earlier.draws[""].class_numbers is None
    ids = event_ids("6a1e0d2a-9c0b-11ef-8a4a-000000000000", 0, NUM)
    half = NUM // 2
    known = specs_of(between(EVENTS, 0, half), LABELS[:half], ids=ids[:half])
    unknown = specs_of(between(EVENTS, half, NUM), None, ids=ids[half:])
    merged = merge_all([unknown, known])  # whose events are of no known class
    assert np.bincount(merged.draws[""].classes, minlength=256)[[0, 1, 255]].tolist() == [
        *np.bincount(LABELS[:half]),
        half,
    ]
    assert Specs.from_json(merged.to_json()) == merged


def test_placeholders_are_found_wherever_counting_finds_them():
    for name, values in EVENTS.contents.items():
        ordered = np.sort(values.astype(np.float64))
        below, bulk, above = set_aside(ordered)
        assert below.size + above.size == (name != "plain")
        assert bulk.size == (abs(ordered) != 999).sum()


@given(st.lists(st.integers(0, 4), min_size=1, max_size=40), st.data())
@num_examples(40)
def test_objects_are_of_the_class_of_their_event(counts, data):
    labels = data.draw(st.lists(st.integers(0, 3), min_size=len(counts), max_size=len(counts)))
    owners = np.repeat(np.arange(len(counts)), counts)
    array = ak.Array({"event": np.arange(len(counts)), "Jet_event": ak.unflatten(owners, counts)})
    specs = specs_of(Events.from_awkward(array), np.array(labels, np.uint8))
    for name in ("event", "Jet_event"):
        entry = specs.branches[name]
        expected = np.array(labels)[entry.drawn.astype(int)]
        np.testing.assert_array_equal(specs.draws[entry.group].classes, expected)
