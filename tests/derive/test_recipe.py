"""Derived branches, object cuts and selections as laws over random events."""

import awkward as ak
import numpy as np
import pytest
from hypothesis import given
from strategies import BRANCHES, events, num_examples, split_events

from mlaas4hep_dask.derive.recipe import Recipe
from mlaas4hep_dask.errors import ExpressionError
from mlaas4hep_dask.events import Branch, Events
from mlaas4hep_dask.events.events import concatenate

AVAILABLE = {branch.name: branch for branch in BRANCHES}
KEEP = ("met", "HT", "lead", "Jet_pt", "Jet_x", "Muon_pt")


def recipe(**texts):
    return Recipe.of(AVAILABLE, **texts)


FULL = recipe(
    derive={
        "lead": "Jet_x[:, 0]",
        "HT": "sum(Jet_pt)",
        "Jet_x": "Jet_pt * scale",
        "scale": "met + 1",
    },
    objects={"Jet": "Jet_x > -5 & Jet_id != 3", "Muon": "Muon_pt < max(Muon_pt)"},
    select=["count(Jet_id) >= 1 & met == met", "!(HT > 1000)"],
)


@pytest.mark.parametrize("num_events", [10, 30_000])
def test_what_is_left_does_not_depend_on_how_it_is_copied(num_events):
    random = np.random.default_rng(4)
    counts = random.poisson(2, num_events)
    pt = ak.unflatten(random.normal(size=counts.sum()).astype("float32"), counts)
    array = ak.Array({"met": random.normal(size=num_events), "Jet_pt": pt})
    made = Events.from_awkward(array)
    available = {branch.name: branch for branch in made.branches}
    cut = Recipe.of(available, objects={"Jet": "Jet_pt > 0.2"}, select=["met > 0"])
    found = cut.prepare(made, ["met", "Jet_pt"]).events.to_awkward()
    expected = array[array.met > 0]
    assert ak.array_equal(found.met, expected.met)
    assert ak.array_equal(found.Jet_pt, expected.Jet_pt[expected.Jet_pt > np.float32(0.2)])


def assert_same(a, b):
    assert (len(a), a.branches) == (len(b), b.branches)
    for branch in a.branches:
        np.testing.assert_array_equal(a.contents[branch.name], b.contents[branch.name])
    assert a.offsets.keys() == b.offsets.keys()
    for collection, own in a.offsets.items():
        np.testing.assert_array_equal(own, b.offsets[collection])


@given(split_events())
@num_examples(60)
def test_preparing_parts_is_preparing_the_whole(whole_and_parts):
    whole, parts = whole_and_parts
    together = FULL.prepare(whole, KEEP)
    prepared = [FULL.prepare(part, KEEP) for part in parts]
    assert_same(concatenate([part.events for part in prepared]), together.events)
    np.testing.assert_array_equal(
        np.concatenate([part.selected for part in prepared]), together.selected
    )
    for counts in ("cut_flow", "removed"):
        total = getattr(together, counts)
        assert total == {
            name: sum(getattr(part, counts)[name] for part in prepared) for name in total
        }


@given(events())
@num_examples(60)
def test_a_recipe_does_what_one_would_write_with_awkward(made):
    prepared = FULL.prepare(made, KEEP)
    with np.errstate(all="ignore"):
        e = made.to_awkward()
        x = ak.values_astype(e.Jet_pt, np.float64) * (ak.values_astype(e.met, np.float64) + 1)
        good = (x > -5) & (e.Jet_id != 3)
        pt = ak.values_astype(e.Jet_pt[good], np.float64)
        ht = ak.sum(pt, axis=1)
        sizes = ak.to_numpy(ak.sum(np.abs(pt), axis=1))
        first = (ak.num(e.Jet_id[good]) >= 1) & (e.met == e.met)
        chosen = first & ~(ht > 1000)
    np.testing.assert_array_equal(prepared.selected, chosen)
    rounding = 1e-12 * sizes[np.isfinite(sizes)].max(initial=0)  # awkward adds in another order
    np.testing.assert_allclose(
        prepared.events.contents["HT"], ht[chosen], rtol=1e-12, atol=rounding
    )
    kept = ak.to_numpy(ak.flatten(e.Jet_pt[good][chosen]))
    np.testing.assert_array_equal(prepared.events.contents["Jet_pt"], kept)
    assert prepared.events.branches == tuple(FULL.branches[name] for name in KEEP)
    assert [*prepared.cut_flow.values()] == [
        ak.sum(ak.num(e.Jet_id[good]) >= 1),
        ak.sum(first),
        ak.sum(chosen),
    ]
    assert prepared.removed["Jet"] == ak.sum(~good)


def test_only_what_is_needed_is_read():
    assert FULL.steps(["Muon_pt"], select=False).read == ("Muon_pt",)
    assert FULL.steps(["lead"], select=False).read == ("Jet_id", "Jet_pt", "met")
    assert FULL.steps(["mass"]).read == ("Jet_id", "Jet_pt", "mass", "met")
    unused = recipe(derive={"a": "mass + 1", "b": "met"})
    assert unused.steps(["b"]).read == ("met",)
    assert unused.steps(["b"]).late == ("b",)


def test_a_counter_counts_the_objects_that_are_left():
    array = ak.Array({"nJet": [2, 1], "Jet_pt": [[40.0, 20.0], [10.0]]})
    made = Events.from_awkward(array)
    available = {branch.name: branch for branch in made.branches}
    cut = Recipe.of(available, objects={"Jet": "Jet_pt > 30"}, select=["nJet >= 1"])
    prepared = cut.prepare(made, ["nJet"])
    assert prepared.events.contents["nJet"].tolist() == [1]
    assert prepared.events.contents["nJet"].dtype == made.contents["nJet"].dtype
    assert (prepared.cut_flow, prepared.removed) == ({"nJet >= 1": 1}, {"Jet": 2})
    assert cut.steps(["nJet"]).read == ("Jet_pt", "nJet")


def test_a_branch_has_the_same_values_whatever_else_is_asked_for():
    array = ak.Array(
        {
            "Jet_pt": [[50.0, 20.0], [90.0], [5.0]],
            "Muon_pt": [[30.0, 12.0], [11.0], []],
        }
    )
    made = Events.from_awkward(array)
    available = {branch.name: branch for branch in made.branches}
    cut = Recipe.of(
        available,
        derive={"soft": "count(Muon_pt > 10)", "twice": "2 * soft", "hard": "count(Muon_pt)"},
        objects={"Jet": "Jet_pt > 10 * soft", "Muon": "Muon_pt > 25"},
        select=["count(Jet_pt) >= 1"],
    )
    names = ["soft", "twice", "hard", "Jet_pt", "Muon_pt"]
    trained = cut.prepare(made, names).events
    # those that the cut on jets needs are of all muons
    assert trained.contents["soft"].tolist() == [2, 1, 0]
    assert trained.contents["hard"].tolist() == [1, 0, 0]
    for name in names:
        served = cut.narrowed([name])
        texts = served.to_json()
        reads = {each: available[each] for each in served.steps([name], select=False).read}
        sent = Recipe.of(
            reads, derive=texts["derive"], objects=texts["objects"], early=texts.get("early", ())
        )
        for other in (cut, served, sent):
            found = other.prepare(made, [name], select=False).events
            np.testing.assert_array_equal(found.contents[name], trained.contents[name])
    assert cut.narrowed(["soft"]).to_json()["early"] == ["soft"]
    assert "early" not in cut.to_json()


def test_cuts_on_two_collections_do_not_depend_on_each_other():
    first = recipe(objects={"Jet": "Jet_pt > 0", "Muon": "Muon_pt > sum(Jet_pt)"})
    second = recipe(objects={"Muon": "Muon_pt > sum(Jet_pt)", "Jet": "Jet_pt > 0"})
    made = Events.from_awkward(
        ak.Array({"Jet_pt": [[-9.0, 2.0]], "Muon_pt": [[-8.0, 1.0]], "Jet_id": [[1, 1]]})
    )
    for each in (first, second):
        prepared = each.prepare(made, ["Jet_pt", "Muon_pt"])
        assert prepared.events.contents["Muon_pt"].tolist() == [1.0]
        assert prepared.events.contents["Jet_pt"].tolist() == [2.0]


@pytest.mark.parametrize(
    ("texts", "key", "message"),
    [
        ({"derive": {"a": "b", "b": "c + 1", "c": "a"}}, "derive.a", "needs itself: a -> b"),
        ({"derive": {"a": "a + 1"}}, "derive.a", "needs itself: a -> a"),
        ({"derive": {"met": "mass"}}, "derive.met", "has a branch 'met' already"),
        ({"derive": {"x": "Jet_Pt"}}, "derive.x", "did you mean 'Jet_pt'?"),
        ({"derive": {"ok": "met", "x": "ok +"}}, "derive.x", "it ends too early"),
        ({"objects": {"Jets": "Jet_pt > 3"}}, "objects.Jets", "did you mean 'Jet'?"),
        ({"objects": {"Jet": "Muon_pt > 3"}}, "objects.Jet", "objects of 'Jet', found 'Muon'"),
        ({"objects": {"Jet": "met > 3"}}, "objects.Jet", "found one value per event"),
        ({"objects": {"Jet": "Jet_pt"}}, "objects.Jet", "found numbers (float32)"),
        ({"select": ["met"]}, "select.0", "expected a condition, found numbers (float32)"),
        ({"select": ["met > 1", "Jet_pt > 3"]}, "select.1", "any() or all() of it is one"),
    ],
)
def test_what_does_not_fit_is_an_error_that_names_its_key(texts, key, message):
    with pytest.raises(ExpressionError) as raised:
        recipe(**texts)
    assert message in str(raised.value)
    assert raised.value.key == key


def test_derived_branches_have_kind_and_dtype_before_events_are_read():
    assert FULL.branches["HT"] == Branch("HT", "flat", "float64")
    assert FULL.branches["Jet_x"] == Branch("Jet_x", "jagged", "float64", "Jet")
    assert FULL.branches["lead"] == Branch("lead", "flat", "float64")
