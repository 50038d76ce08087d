"""Branches that count objects: they follow cuts, and tell of a target that counts."""

import awkward as ak
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import uproot

from mlaas4hep_dask.config import Config
from mlaas4hep_dask.dataset.description import description_of
from mlaas4hep_dask.derive.recipe import Recipe
from mlaas4hep_dask.inputs.counters import counting_notes
from mlaas4hep_dask.inputs.leaks import leak_notes
from mlaas4hep_dask.inputs.preflight import preflight
from mlaas4hep_dask.inputs.prepare import prepare

#: By name of what counts the objects of ``jet``, as the file tells.
NAMES = {"jet_n": "{}_n", "jet_size": "{}_size", "njet": "n{}", "multiplicity": "multiplicity"}


@pytest.fixture(params=NAMES)
def counted(request, tmp_path):
    """A file of jets and the name of their counter."""
    rng = np.random.default_rng(4)
    numbers = rng.poisson(2, 300)
    pt = ak.unflatten(rng.exponential(30, numbers.sum()).astype("f4"), numbers)
    columns = {"jet": ak.zip({"pt": pt, "eta": pt * 0 + 1}), "met": rng.normal(size=300)}
    with uproot.recreate(tmp_path / "a.root") as file:
        types = {name: each.type if name == "jet" else "f8" for name, each in columns.items()}
        file.mktree("t", types, counter_name=NAMES[request.param].format)
        file["t"].extend(columns)
    return str(tmp_path / "a.root"), request.param, pt


def checked(file, base=".", **more):
    keys = {"samples": [{"name": "a", "files": file}], "tree": "t", **more}
    return preflight(description_of(Config.from_mapping(keys, base=base)))


def regression(branch):
    return {"kind": "regression", "branch": branch}


def partition(found):
    return next(iter(found.planned.values())).partition(0, 300)


def test_a_counter_follows_cuts_whatever_its_name_is(counted):
    file, counter, pt = counted
    plain = checked(file, target=regression("met"))
    (collection,) = {each.collection for each in plain.branches} - {None}
    more = {"objects": {collection: "jet_pt > 30"}, "select": f"{counter} >= 2"}
    found = checked(file, target=regression("met"), **more)
    assert counter in found.selection.inputs
    prepared = prepare(partition(found), found.preparation)
    left = ak.to_numpy(ak.num(pt[pt > 30]))
    np.testing.assert_array_equal(prepared.events.contents[counter], left[left >= 2])
    # and where events are served, which come without a file
    keep = found.selection.inputs
    texts = found.recipe.narrowed(keep).to_json()
    served = Recipe.of(
        plain.reference.branches, objects=texts["objects"], counters=texts.get("counters")
    )
    raw = prepare(partition(plain), plain.preparation).events
    values = served.prepare(raw, [counter], select=False).events.contents[counter]
    np.testing.assert_array_equal(values, left)


@pytest.mark.parametrize("target", ["count(jet_pt)", "{counter}", "many", "max(2, {counter})"])
def test_what_counts_the_same_objects_as_the_target_is_no_input_by_wildcard(counted, target):
    file, counter, _ = counted
    derive = {"many": "count(jet_eta)", "HT": "sum(jet_pt)", "twice": "2 * met"}
    found = checked(file, target=regression(target.format(counter=counter)), derive=derive)
    assert found.selection.inputs == ["met", "twice"]
    assert found.selection.targets == sorted(["HT", "jet_eta", "jet_pt", counter, "many"])
    branches = {"include": ["*", "jet_e*"]}
    asked = regression(target.format(counter=counter))
    named = checked(file, target=asked, branches=branches, derive=derive)
    is_read = target == "many"  # which is made of it
    assert ("jet_eta" in named.selection.inputs) == (not is_read)
    assert is_read == (not leak_notes(named))
    assert is_read or "the inputs jet_eta show how many there are" in leak_notes(named)[0]
    # a weight by it leaves the jets, which are not made of it
    weighted = checked(file, target=regression("met"), weight=f"1 + 0.1 * {counter}")
    assert weighted.selection.inputs == ["jet_eta", "jet_pt"]


def test_objects_that_a_cut_compares_with_the_target_are_no_inputs_by_wildcard(counted):
    file = counted[0]
    plain = checked(file, target=regression("met"))
    (collection,) = {each.collection for each in plain.branches} - {None}
    for name, derive in (("met", {}), ("twice", {"twice": "2 * met"})):
        cut = {collection: f"jet_pt > {name}"}
        found = checked(file, target=regression("met"), objects=cut, derive=derive)
        assert not {"jet_pt", "jet_eta", "met", "twice"} & {*found.selection.inputs}
    own = checked(file, target=regression("sum(jet_pt)"), objects={collection: "jet_pt > 30"})
    assert {"met", "jet_eta"} <= {*own.selection.inputs}


def test_a_number_that_seems_to_count_a_list_is_told_of(tmp_path):
    rng = np.random.default_rng(2)
    numbers = rng.poisson(2, 200)
    columns = {
        "njets": pa.array(numbers),
        "once": pa.array(np.ones(200, np.int32)),
        "met": pa.array(rng.normal(size=200)),
        "jet_pt": ak.to_arrow(
            ak.unflatten(rng.exponential(30, numbers.sum()), numbers), extensionarray=False
        ),
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    file = str(tmp_path / "a.parquet")
    found = checked(file, target=regression("met"), objects={"jet_pt": "jet_pt > 30"})
    (note,) = counting_notes(found)
    assert "'njets' is the number of objects of 'jet_pt' in the first events, and keeps" in note
    assert "count(jet_pt) is the number of those that are left" in note
    (note,) = counting_notes(checked(file, target=regression("count(jet_pt)")))
    assert note.startswith("WARNING: the input 'njets' is the number of objects of 'jet_pt'")
    assert counting_notes(checked(file, target=regression("met"))) == []


FUNCTION = """
def jets(events):
    events["label"] = events.met * 1
    events["like"] = events.met * 2
    events["other"] = events.jet_pt[:, :1]
    return events
"""


def test_what_a_function_makes_beside_the_target_is_no_input_by_wildcard(counted, tmp_path):
    file, counter, _ = counted
    (tmp_path / "jets.py").write_text(FUNCTION)
    more = {"function": {"callable": "jets.py:jets"}, "target": regression("label")}
    derive = {"twice": "2 * like"}
    found = checked(file, tmp_path, derive=derive, **more)
    assert found.selection.targets == ["jet_pt", "label", "like", "met", "other", "twice"]
    named = checked(file, tmp_path, derive=derive, branches={"include": ["*", "like"]}, **more)
    assert {"like", counter} <= {*named.selection.inputs}
    (note,) = leak_notes(named)
    assert "makes label, which the target is made of, and also the inputs like: see that" in note


@pytest.mark.parametrize(
    ("target", "more", "kept"),
    [
        ("met", {"derive": {"excess": "Jet_pt - met"}, "objects": {"Jet": "excess > 0"}}, "Muon"),
        ("count(Muon_pt)", {"objects": {"Jet": "Jet_pt > 10 * nMuon"}}, None),
        ("met", {"objects": {"Muon": "Muon_pt > met", "Jet": "Jet_pt > max(Muon_pt)"}}, None),
        ("met", {"objects": {"Muon": "Muon_pt > met", "Jet": "Jet_pt > 10 * nMuon"}}, None),
        ("sum(Jet_pt)", {"objects": {"Jet": "Jet_pt > 30"}}, "Jet"),
    ],
)
def test_cuts_that_lead_to_the_target_by_way_of_others_keep_a_collection_away(
    target, more, kept, tmp_path
):
    rng = np.random.default_rng(4)
    jets, muons = rng.poisson(2, 200), rng.poisson(3, 200)
    pt = ak.unflatten(rng.exponential(30, jets.sum()).astype(np.float32), jets)
    muon = ak.unflatten(rng.exponential(30, muons.sum()).astype(np.float32), muons)
    columns = {
        "Jet": ak.zip({"pt": pt, "eta": pt * 0 + 1}),
        "Muon": ak.zip({"pt": muon}),
        "met": rng.normal(size=200),
    }
    file = tmp_path / "objects.root"
    with uproot.recreate(file) as out:
        out.mktree("t", {n: "f8" if n == "met" else v.type for n, v in columns.items()})
        out["t"].extend(columns)
    found = checked(str(file), target=regression(target), **more).selection.inputs
    members = {name.partition("_")[0] for name in found if name.startswith(("Jet_", "Muon_"))}
    assert members - {"Muon"} == ({"Jet"} if kept == "Jet" else set())
    assert ("Muon" in members) == (kept is not None)
