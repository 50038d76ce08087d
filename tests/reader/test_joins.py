"""Branches of one collection that their file counts one by one: which are joined, and which not."""

import re

import awkward as ak
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import uproot
from root_process import run_in_root
from steps import dataset_of

from mlaas4hep_dask.config import Config
from mlaas4hep_dask.dataset.description import description_of
from mlaas4hep_dask.dataset.planning import check_files
from mlaas4hep_dask.derive.recipe import Recipe
from mlaas4hep_dask.errors import ConfigError, DataError
from mlaas4hep_dask.inputs.preflight import preflight
from mlaas4hep_dask.predict.request import check_request
from mlaas4hep_dask.predict.scoring import predict_files
from mlaas4hep_dask.reader import plan_file, read
from mlaas4hep_dask.run import fit


def jets(events=200, seed=0, odd=None):
    """Columns of events; in the entry ``odd`` there is one eta more than there are pt."""
    rng = np.random.default_rng(seed)
    counts = rng.poisson(2, events)
    others = counts.copy()
    if odd is not None:
        others[odd] += 1

    def of(numbers):
        return ak.unflatten(rng.exponential(30, numbers.sum()).astype("f4"), numbers)

    return {"met": rng.exponential(20, events), "Jet_pt": of(counts), "Jet_eta": of(others)}


def write(path, columns, kind="TTree"):
    if kind == "Parquet":
        path = path.with_suffix(".parquet")
        table = {name: ak.to_arrow(each, extensionarray=False) for name, each in columns.items()}
        pq.write_table(pa.table(table), path)
        return str(path)
    with uproot.recreate(path) as file:
        (file.mktree if kind == "TTree" else file.mkrntuple)("Events", columns)
    return str(path)


def keys_of(signal, background, **more):
    samples = [
        {"name": "signal", "label": 1, "files": signal},
        {"name": "background", "label": 0, "files": background},
    ]
    return {"samples": samples, **more}


def planned(*files, **more):
    config = Config.from_mapping(keys_of(*files, **more))
    return check_files(preflight(description_of(config)), config.partition, config.max_events)


KINDS = ["TTree", "RNTuple", "Parquet"]
EXPRESSIONS = {
    "derive": {"H": "sum(Jet_pt * cosh(Jet_eta / 100))", "lead": "max(Jet_pt[Jet_eta < 20])"},
    "objects": {"Jet": "Jet_pt > 10 & Jet_eta < 60"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_branches_that_count_alike_are_one_collection(tmp_path, client, kind):
    files = [write(tmp_path / f"{n}.root", jets(seed=n), kind) for n in range(2)]
    more = {"partition": {"max_events": 70}, "encode": {"sort": {"Jet": "-Jet_pt"}}}
    more["encode"]["normalisation"] = "minmax"
    dataset = dataset_of(keys_of(*files, **EXPRESSIONS, **more), client)
    specs = dataset.specs()
    assert list(specs.multiplicities) == ["Jet"]
    columns = dataset.encoding().layout.columns()
    assert [name for name in columns if name.endswith("[1]")] == ["Jet_eta[1]", "Jet_pt[1]"]
    whole = [ak.Array(jets(seed=n)) for n in range(2)]
    events = ak.concatenate(whole)
    good = (events.Jet_pt > 10) & (events.Jet_eta < 60)
    pt, eta = events.Jet_pt[good], events.Jet_eta[good]
    assert specs.branches["Jet_pt"].moments.num_values == ak.count(pt)
    h = ak.sum(ak.values_astype(pt, "f8") * np.cosh(ak.values_astype(eta, "f8") / 100), axis=1)
    moments = specs.branches["H"].moments
    assert (moments.min, moments.max) == pytest.approx((ak.min(h), ak.max(h)), rel=1e-12)
    if kind == "TTree":  # the counters count the objects that are left
        for name in ("nJet_pt", "nJet_eta"):
            assert specs.branches[name].moments.mean == pytest.approx(ak.mean(ak.num(pt)))
    x = dataset.to_dask().x.compute()
    first = columns.index("Jet_pt[0]")
    lead = ak.fill_none(ak.max(pt, axis=1), np.nan)
    low, high = specs.branches["Jet_pt"].moments.min, specs.branches["Jet_pt"].moments.max
    expected = np.nan_to_num((ak.to_numpy(lead) - low) / (high - low))
    np.testing.assert_allclose(x[:, first], expected, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_the_plan_tells_which_branches_were_joined(tmp_path, kind):
    files = [write(tmp_path / f"{n}.root", jets(seed=n), kind) for n in range(2)]
    plan = planned(*files)
    assert "\n  joined by equal multiplicities: Jet (Jet_eta, Jet_pt)" in plan.to_text()
    assert "joined by equal multiplicities" in plan._repr_html_()
    assert "joined" not in planned(*files, collections={"Jet": False}).to_text()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("odd", [3, 1500])
def test_what_is_true_of_one_file_alone_is_an_error_in_any_order(tmp_path, client, kind, odd):
    """In its first 1,000 entries, by which each file tells, or after them."""
    good = write(tmp_path / "good.root", jets(2000), kind)
    bad = write(tmp_path / "bad.root", jets(2000, seed=1, odd=odd), kind)
    other = write(tmp_path / "other.root", jets(2000, seed=2), kind)
    messages = set()
    for background in ([good, bad], [bad, good]):
        for max_events in (100_000, 300):
            keys = keys_of(other, background, partition={"max_events": max_events})
            with pytest.raises(DataError) as caught:
                dataset_of(keys, client).specs()
            message = str(caught.value)
            assert bad in message
            counts = re.search(
                r"in entry (\d+) '(\w+)' has (\d+) objects, and '(\w+)' (\d+)", message
            )
            assert int(counts[1]) == odd
            assert {counts[2], counts[4]} == {"Jet_pt", "Jet_eta"}
            assert "collections: {Jet: false}" in message
            messages.add(re.sub(r" entries \d+-\d+", "", message))
    assert len(messages) == 1
    for background in ([good, bad], [bad, good]):
        keys = keys_of(other, background, collections={"Jet": False})
        assert sorted(dataset_of(keys, client).specs().multiplicities) == ["Jet_eta", "Jet_pt"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_counts_differently_stays_apart_and_an_expression_says_why(tmp_path, kind):
    files = [write(tmp_path / f"{n}.root", jets(seed=n, odd=3), kind) for n in range(2)]
    plan = planned(*files)
    collections = {branch.name: branch.collection for branch in plan.branches if branch.collection}
    assert collections == {"Jet_pt": "Jet_pt", "Jet_eta": "Jet_eta"}
    for more in ({"objects": {"Jet": "Jet_pt > 3"}}, {"derive": {"x": "sum(Jet_pt * Jet_eta)"}}):
        with pytest.raises(ConfigError, match=r"in entry 3 'Jet_\w+' has \d objects") as caught:
            planned(*files, **more)
        assert "as in 'collections: {Jet: [A, B]}'" in str(caught.value)


@pytest.mark.parametrize(
    ("collections", "expected"),
    [
        ({"J": ["A_pt", "B_pt"]}, {"A_pt": "J", "B_pt": "J", "C_pt": "C", "C_eta": "C"}),
        ({"J": "?_pt"}, {"A_pt": "J", "B_pt": "J", "C_pt": "J", "C_eta": "C_eta"}),
        ({}, {"A_pt": "A_pt", "B_pt": "B_pt", "C_pt": "C", "C_eta": "C"}),
        ({"C": False}, {"A_pt": "A_pt", "B_pt": "B_pt", "C_pt": "C_pt", "C_eta": "C_eta"}),
        ({"*": False}, {"A_pt": "A_pt", "B_pt": "B_pt", "C_pt": "C_pt", "C_eta": "C_eta"}),
        ({}, {"A_x.pt": "A_x.pt", "A_y.pt": "A_y.pt"}),
        ({"J": ["*"]}, {"A_pt": "J", "B_pt": "J", "C_pt": "J", "C_eta": "J"}),
    ],
)
def test_the_key_collections_names_and_forbids_joins(tmp_path, client, collections, expected):
    counts = [1, 0, 3, 2]
    values = np.arange(6, dtype="f4")
    columns = {name: ak.unflatten(values + i, counts) for i, name in enumerate(expected)}
    files = [write(tmp_path / f"{n}.root", columns) for n in range(2)]
    keys = keys_of(*files, collections=collections)
    config = Config.from_mapping(keys)
    assert Config.from_mapping(config.model_dump()) == config
    plan = check_files(preflight(description_of(config)), config.partition, config.max_events)
    assert {b.name: b.collection for b in plan.branches if b.collection} == expected
    specs = dataset_of(keys, client).specs()
    assert set(specs.multiplicities) == set(expected.values())
    for own in specs.multiplicities.values():
        assert list(own) == [2, 2, 2, 2]  # events of both files, once however many count them


@pytest.mark.parametrize(
    ("collections", "message"),
    [
        ({"Jet": ["Jet_Pt"]}, r"'Jet_Pt' is no jagged branch; did you mean 'Jet_pt'\?"),
        ({"Jet": ["met"]}, "'met' has one value per event"),
        ({"A": ["Jet_pt"], "B": ["Jet_*"]}, "'Jet_pt' is of collection 'A' already"),
        ({"A": True}, "expected branches or patterns of a collection, or false"),
        ({"A": 7}, "expected branches or patterns of a collection, or false"),
    ],
)
def test_collections_that_cannot_be_are_refused_at_their_line(tmp_path, collections, message):
    files = [write(tmp_path / f"{n}.root", jets(seed=n)) for n in range(2)]
    with pytest.raises(ConfigError, match=message):
        planned(*files, collections=collections)


@pytest.mark.parametrize("flat", [True, False])
def test_a_branch_that_is_called_like_the_collection_keeps_its_name(tmp_path, flat):
    columns = jets()
    columns["Jet"] = columns["met"] if flat else columns["Jet_pt"]
    files = [write(tmp_path / f"{n}.root", columns) for n in range(2)]
    plan = planned(*files)
    assert "Jet" in {branch.name for branch in plan.branches}
    assert {b.collection for b in plan.branches if b.name != "Jet" and b.collection} == {
        "Jet_pt",
        "Jet_eta",
    }
    joined = planned(*files, collections={"Jet": ["Jet_*"]})
    assert {b.collection for b in joined.branches if b.name.startswith("Jet_")} == {"Jet"}


def test_a_file_without_objects_tells_nothing_and_fits(tmp_path, client):
    lone = jets(odd=3)
    empty = {"met": lone["met"], "Jet_pt": lone["Jet_pt"][:, :0], "Jet_eta": lone["Jet_eta"][:, :0]}
    files = [write(tmp_path / "lone.root", lone), write(tmp_path / "empty.root", empty)]
    more = write(tmp_path / "more.root", {name: each[:0] for name, each in lone.items()})
    specs = dataset_of(keys_of(files[0], [files[1], more]), client).specs()
    assert sorted(specs.multiplicities) == ["Jet_eta", "Jet_pt"]


SNAPSHOT = """
frame = ROOT.RDataFrame(300)
frame = frame.Define("n", "int(rdfentry_ % 4)")
for name, step in (("Jet_pt", 1.5), ("Jet_eta", 0.5), ("Tag_x", 2.0)):
    frame = frame.Define(name, f"std::vector<float>(n, {step} * rdfentry_)")
frame = frame.Define("Tag_y", "std::vector<float>(3 - n, 1)").Define("met", "1.f * rdfentry_")
frame.Snapshot("Events", sys.argv[1], ["Jet_pt", "Jet_eta", "Tag_x", "Tag_y", "met"])
with ROOT.TFile.Open(sys.argv[2], "RECREATE") as file:
    tree = ROOT.TTree("Events", "")
    from array import array
    n, pt, met = array("i", [0]), array("f", [0.0] * 4), array("f", [0.0])
    new = ROOT.std.vector("float")()
    tree.Branch("nJet", n, "nJet/I")
    tree.Branch("Jet_pt", pt, "Jet_pt[nJet]/F")
    tree.Branch("Jet_new", new)
    tree.Branch("met", met, "met/F")
    for i in range(300):
        n[0], met[0] = i % 4, i
        new.clear()
        for k in range(n[0]):
            pt[k] = 10 * i + k
            new.push_back(-pt[k])
        tree.Fill()
    tree.Write()
"""


@pytest.mark.slow
def test_vectors_that_root_writes_are_joined_with_each_other_and_with_counted_ones(tmp_path):
    files = [str(tmp_path / "vectors.root"), str(tmp_path / "both.root")]
    run_in_root(SNAPSHOT, *files)
    plan = plan_file(files[0], "Events", "s")
    assert {name: each.collection for name, each in plan.branches.items() if each.collection} == {
        "Jet_pt": "Jet",
        "Jet_eta": "Jet",
        "Tag_x": "Tag_x",
        "Tag_y": "Tag_y",
    }
    plan = plan_file(files[1], "Events", "s")
    recipe = Recipe.of(plan.branches, objects={"Jet": "Jet_pt + Jet_new == 0 & Jet_new < -20"})
    events = read(plan.planned([]).partition(5, 205), list(plan.branches.values()))
    prepared = recipe.prepare(events, ["nJet", "Jet_new"]).events
    entries = np.arange(5, 205)
    expected = [[-(10 * i + k) for k in range(i % 4) if 10 * i + k > 20] for i in entries]
    assert prepared.to_awkward().Jet_new.to_list() == expected
    assert prepared.contents["nJet"].tolist() == list(map(len, expected))


def test_a_model_scores_the_same_events_whatever_counts_them(tmp_path, client):
    files = [write(tmp_path / f"{n}.root", jets(seed=n)) for n in range(2)]
    training = {"epochs": 1, "batch_size": 50}
    keys = keys_of(*files, **EXPRESSIONS, training=training, branches={"exclude": ["nJet*"]})
    bundle = fit(dataset_of(keys, client), output=tmp_path / "run").bundle
    assert {b.collection for b in bundle.reads if b.collection} == {"Jet"}
    columns = jets(events=40, seed=9)
    few = {name: each[2:3] for name, each in columns.items()}
    counted = tmp_path / "counted.root"
    with uproot.recreate(counted) as file:
        zipped = ak.zip({"pt": columns["Jet_pt"], "eta": columns["Jet_eta"]})
        file.mktree("Events", {"met": columns["met"], "Jet": zipped})
    assert "nJet" in uproot.open(counted)["Events"].keys()  # noqa: SIM118
    scores = {}
    inputs = {
        "counted": str(counted),
        "few": write(tmp_path / "few.root", few),
        **{kind: write(tmp_path / f"{kind}.root", columns, kind) for kind in KINDS},
    }
    for name, file in inputs.items():
        output = tmp_path / f"{name}-scores.parquet"
        request = check_request(bundle, [file], output)
        predict_files(request, output, client=client)
        scores[name] = pq.read_table(output)["score"].to_numpy()
    for name in KINDS:
        np.testing.assert_array_equal(scores[name], scores["counted"])
    # A product of matrices rounds a single row otherwise than many.
    np.testing.assert_allclose(scores["few"], scores["counted"][2:3], rtol=1e-6)
