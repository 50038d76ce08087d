"""Selections of a data set on a cluster: counts, shapes and independence of partitions."""

import json
from pathlib import Path

import awkward as ak
import numpy as np
import pytest
import torch
import uproot

from mlaas4hep_dask.bundle import open_bundle, write_bundle
from mlaas4hep_dask.config import Config, load
from mlaas4hep_dask.dataset import Dataset
from mlaas4hep_dask.dataset.description import description_of
from mlaas4hep_dask.dataset.planning import check_files
from mlaas4hep_dask.encode.split import event_ids
from mlaas4hep_dask.errors import BundleError, ConfigError, DataError
from mlaas4hep_dask.inputs.preflight import preflight
from mlaas4hep_dask.predict import predict_files
from mlaas4hep_dask.predict.request import check_request
from mlaas4hep_dask.reader import read
from mlaas4hep_dask.run.stages import fit
from mlaas4hep_dask.score.example import example_of
from mlaas4hep_dask.score.opening import open_scorer
from mlaas4hep_dask.score.parts import Records
from mlaas4hep_dask.train.network import dense
from mlaas4hep_dask.waiting import ClusterHandle

CUTS = {
    "tree": "events",
    "derive": {"lead": "Jet_pt[:, 0]", "Jet_pt": "hypot(Jet_Px, Jet_Py)", "HT": "sum(Jet_pt)"},
    "objects": {"Jet": "Jet_pt > 35"},
    "select": "NJet >= 1 & NMuon >= 1",
    "branches": {"include": ["Jet_pt", "HT", "lead", "NJet", "Muon_P?"]},
    "specs": {"cache": None},
}


@pytest.fixture
def keys(cms_files):
    single_top, *diboson = map(str, cms_files)
    return CUTS | {
        "samples": [
            {"name": "single_top", "label": 1, "files": single_top},
            {"name": "diboson", "label": 0, "files": diboson},
        ]
    }


@pytest.fixture(scope="module")
def expected(cms_events):
    """The selection as one would write it with awkward, which knows nothing of recipes."""
    e = cms_events.to_awkward()
    pt = np.hypot(e.Jet_Px, e.Jet_Py)
    good = pt > 35
    num_jets = np.asarray([sum(event) for event in good.to_list()])
    return {
        "selected": (num_jets >= 1) & (e.NMuon.to_numpy() >= 1),
        "after_jets": num_jets >= 1,
        "removed": int(np.sum([len(event) for event in good.to_list()]) - num_jets.sum()),
    }


def dataset_of(keys, client, **more):
    return Dataset(Config.from_mapping({**keys, **more}), client)


def arrays_of(dataset, client):
    lazy = dataset.to_dask()
    assert not np.isnan(lazy.x.shape[0])
    computed = [future.result() for future in client.compute(list(lazy))]
    for made, found in zip(lazy, computed, strict=True):
        assert made.shape == found.shape
    return dict(zip(lazy._fields, computed, strict=True))


def test_selected_events_do_not_depend_on_partitions(keys, client, expected):
    whole = dataset_of(keys, client, partition={"max_events": 100_000})
    parts = dataset_of(keys, client, partition={"max_events": 333})
    assert len(parts.plan().partitions) > 45
    first, second = arrays_of(whole, client), arrays_of(parts, client)
    num_selected = int(expected["selected"].sum())
    assert first["x"].shape[0] == num_selected
    order = np.lexsort(second["id"].T), np.lexsort(first["id"].T)
    for name, array in first.items():
        np.testing.assert_array_equal(second[name][order[0]], array[order[1]])
    samples = whole.samples()
    assert samples == parts.samples()
    assert sum(sample.num_read for sample in samples.values()) == 16_052
    assert sum(sample.num_selected for sample in samples.values()) == num_selected
    left = sum(sample.cut_flow["NJet >= 1"] for sample in samples.values())
    assert left == expected["after_jets"].sum()
    assert sum(sample.removed["Jet"] for sample in samples.values()) == expected["removed"]


def test_ids_and_split_are_those_of_the_entries(keys, client):
    everything = dataset_of(keys, client, select=[], objects={})
    selected = dataset_of(keys, client)
    ids = arrays_of(everything, client)["id"], arrays_of(selected, client)["id"]
    known = {tuple(each) for each in ids[0].tolist()}
    assert {tuple(each) for each in ids[1].tolist()} < known
    splits = [
        dict(zip(map(tuple, array.tolist()), split_of(dataset, client), strict=True))
        for dataset, array in zip((everything, selected), ids, strict=True)
    ]
    assert all(splits[0][event] == split for event, split in splits[1].items())


def split_of(dataset, client):
    blocks = dataset.blocks()
    made = [blocks.submit(ClusterHandle(client), n).result() for n in range(len(blocks.partitions))]
    return np.concatenate([block.split for block in made])


def test_the_plan_says_what_is_read_and_why(keys):
    plan = check_files(
        preflight(description_of(config := Config.from_mapping(keys))),
        config.partition,
        config.max_events,
    )
    assert [branch.name for branch in plan.branches] == [
        "HT", "Jet_pt", "Muon_Px", "Muon_Py", "Muon_Pz", "NJet", "lead",
    ]  # fmt: skip
    assert plan.read_only == ["Jet_Px", "Jet_Py", "NMuon"]
    text = plan.to_text()
    assert "derived: Jet_pt = hypot(Jet_Px, Jet_Py)" in text
    assert "events selected: NJet >= 1; NMuon >= 1" in text
    assert "read for these only: Jet_Px; Jet_Py; NMuon" in text
    assert "hypot(Jet_Px, Jet_Py)" in plan._repr_html_()


def test_partitions_without_a_selected_event_are_empty_blocks(tmp_path, client):
    keys = two_files(tmp_path)
    dataset = Dataset(
        Config.from_mapping(keys | {"select": "n >= 30", "partition": {"max_events": 10}}), client
    )
    arrays = arrays_of(dataset, client)
    assert dataset.to_dask().x.chunks[0] == (0, 0, 0, 10, 10, 0, 0, 0, 10, 10)
    assert arrays["x"].shape == (40, 1)
    assert dataset.distributions()[0].num_events > 0


def test_a_sample_of_which_nothing_is_selected_is_an_error(tmp_path, client):
    keys = two_files(tmp_path)
    dataset = Dataset(Config.from_mapping(keys | {"select": ["n < 1e3", "n < 0"]}), client)
    with pytest.raises(DataError, match="no event of sample 's' is selected: 50 were read, of wh"):
        dataset.specs()


def test_the_served_score_of_a_raw_event_is_that_of_the_trained_network(keys, client, tmp_path):
    training = {"epochs": 1, "batch_size": 500}
    dataset = dataset_of(keys, client, training=training, encode={"sort": {"Muon": "-Muon_E"}})
    result = fit(dataset, output=tmp_path / "run")
    bundle = result.bundle
    expected_reads = ["Jet_Px", "Jet_Py", "Muon_E", "Muon_Px", "Muon_Py", "Muon_Pz", "NJet"]
    assert [branch.name for branch in bundle.reads] == expected_reads
    network = dense(bundle.encoding.layout.num_columns)
    state = torch.load(tmp_path / "run" / "checkpoints" / "epoch-1.pt", weights_only=True)
    network.load_state_dict(state["network"])
    network.eval()
    arrays = arrays_of(dataset, client)
    with torch.no_grad():
        trained = torch.sigmoid(network(torch.from_numpy(arrays["x"]))).reshape(-1).numpy()
    blocks = dataset.blocks().partitions
    raw = read(blocks[1], bundle.reads).to_awkward()
    ids = event_ids(blocks[1].uuid, blocks[1].entry_start, blocks[1].entry_stop)
    places = {tuple(each): place for place, each in enumerate(ids.tolist())}
    rows = [row for row, each in enumerate(arrays["id"].tolist()) if tuple(each) in places]
    chosen = [places[tuple(arrays["id"][row].tolist())] for row in rows]
    model = open_scorer(result.path / "bundle")
    (scored,) = model.score([Records(ak.to_list(raw[chosen]))])
    assert len(rows) > 1_000
    np.testing.assert_allclose(scored.values, trained[rows], rtol=0, atol=1e-6)
    assert scored.counts.out_of_range == {}
    (example,) = model.score([Records([example_of(bundle)])])
    assert np.min(np.abs(example.values[0] - trained)) < 1e-6
    output = tmp_path / "out.root"
    request = check_request(bundle, [blocks[0].file], output, tree="events")
    predict_files(request, output, client=client)
    with uproot.open(output) as file:
        predicted = next(iter(file.values())).arrays(["source_entry", "score"], library="np")
    first = {tuple(each): n for n, each in enumerate(arrays["id"].tolist())}
    ids = event_ids(blocks[0].uuid, 0, len(predicted["score"])).tolist()
    rows = [first[tuple(each)] for each in ids if tuple(each) in first]
    chosen = [place for place, each in enumerate(ids) if tuple(each) in first]
    np.testing.assert_allclose(predicted["score"][chosen], trained[rows], rtol=0, atol=1e-6)
    (unselected,) = model.score([Records(ak.to_list(raw[:50]))])
    assert len(unselected.values) == 50
    counts = json.loads((result.path / "metrics.json").read_text())["counts"]
    assert [cut["condition"] for cut in counts["cut_flow"]] == ["NJet >= 1", "NMuon >= 1"]
    lost = sum(cut["lost"] for cut in counts["cut_flow"])
    assert counts["events_read"] - lost == counts["events_selected"] == len(trained)
    assert counts["cut_flow"][-1]["left"] == len(trained)
    report = result.report.read_text()
    assert "Cut flow" in report
    assert "NMuon &gt;= 1" in report


def test_a_bundle_whose_recipe_was_altered_is_refused(keys, client, tmp_path):
    dataset = dataset_of(keys, client, objects={}, select=[], branches={"include": ["HT"]})
    recipe = dataset.plan().preparation.recipe
    bundle = write_bundle(
        tmp_path / "bundle",
        name="m",
        model=b"none",
        specs=dataset.specs(),
        encode={},
        metrics={},
        data={},
        card="",
        recipe=recipe,
    )
    assert [branch.name for branch in bundle.reads] == ["Jet_Px", "Jet_Py"]
    assert bundle.manifest["recipe"]["derive"] == {
        "Jet_pt": "hypot(Jet_Px, Jet_Py)",
        "HT": "sum(Jet_pt)",
    }
    path = tmp_path / "bundle" / "manifest.json"
    text = path.read_text()
    for other, message in (
        ("sum(Jet_pt.__class__)", "two underscores"),
        ("sum(Jet_Pt)", "did you mean"),
        ("Jet_pt", "the recipe makes 'HT' jagged"),
    ):
        path.write_text(text.replace("sum(Jet_pt)", other))
        with pytest.raises(BundleError, match=message):
            open_bundle(tmp_path / "bundle")


def two_files(folder):
    for name in "sb":
        with uproot.recreate(folder / f"{name}.root") as file:
            file["Events"] = {"n": np.arange(50), "x": np.arange(50.0)}
    return {
        "samples": [
            {"name": name, "label": label, "files": str(folder / f"{name}.root")}
            for name, label in (("s", 1), ("b", 0))
        ],
        "branches": {"include": ["x"]},
        "specs": {"cache": None},
    }


@pytest.mark.parametrize("specs", [{"mode": "subset", "fraction": 0.5}, "reused", {"cache": "c"}])
def test_counts_are_those_of_all_events_however_the_specs_came_about(keys, client, specs, tmp_path):
    full = dataset_of(keys, client)
    if specs == "reused":
        (tmp_path / "specs.json").write_text(full.specs().to_json())
        specs = {"path": str(tmp_path / "specs.json")}
    elif "cache" in specs:
        specs = {"cache": str(tmp_path)}
        filling = dataset_of(keys, client, specs=specs)
        assert (filling.samples(), filling.num_cached()) == (full.samples(), 0)
    other = dataset_of(keys, client, specs=specs)
    assert other.samples() == full.samples()
    assert other.split_counts() == full.split_counts()
    assert other.num_cached() == (16_052 if "cache" in specs else 0)


def test_the_view_derives_and_selects_and_reads_only_what_is_touched(keys, client, expected):
    dataset = dataset_of(keys, client)
    lead = client.compute(dataset.to_dask_awkward().lead).result()
    reads = dataset.plan().preparation.fewer(["lead"]).reads
    assert [branch.name for branch in reads] == ["Jet_Px", "Jet_Py", "NJet", "NMuon"]
    assert len(lead) == expected["selected"].sum()
    assert np.all(lead > 35)


def test_an_error_in_an_expression_names_the_line(cms_files, tmp_path):
    path = Path(tmp_path, "dataset.yaml")
    samples = (
        "tree: events\n"
        "samples:\n"
        f"  - {{name: a, label: 1, files: {cms_files[0]}}}\n"
        f"  - {{name: b, label: 0, files: {cms_files[1]}}}\n"
    )
    path.write_text(f"{samples}derive:\n  HT: sum(Jet_Ptx)\n")
    with pytest.raises(ConfigError) as raised:
        preflight(description_of(load(path)))
    assert str(raised.value).startswith(f"{path}:6: derive.HT: in 'sum(Jet_Ptx)': column 5: ")
    assert "did you mean 'Jet_Px'?" in str(raised.value)
    assert (raised.value.line, raised.value.nearest) == (6, "Jet_Px")
    for more, place in (
        ('select: ["NJet > 1", "__import__"]\n', ":5: select[1]: in '__import__'"),
        ("objects: {Jets: Jet_Px > 1}\n", ":5: objects.Jets: there is no collection 'Jets'"),
    ):
        path.write_text(samples + more)
        with pytest.raises(ConfigError) as raised:
            preflight(description_of(load(path)))
        assert str(raised.value).startswith(f"{path}{place}")


def test_the_workflow_with_a_selection_selects_and_weighs_as_it_says(cms_files, client, tmp_path):
    workflow = cms_files[0].parent.parent / "selection.yaml"
    overrides = ["max_events=600", "training.epochs=1", "partition.max_events=400"]
    dataset = Dataset.from_yaml(workflow, client, overrides=overrides)
    result = fit(dataset, output=tmp_path / "run")
    chosen, flow = {}, np.zeros(4, int)
    for part in dataset.plan().partitions:
        with uproot.open(part.file) as file:
            entries = {"entry_start": part.entry_start, "entry_stop": part.entry_stop}
            e = file["events"].arrays(**entries)
        jets = np.hypot(e.Jet_Px, e.Jet_Py)
        jets = jets[jets > 40]
        muons = np.hypot(e.Muon_Px, e.Muon_Py)
        muons = muons[(muons > 25) & (e.Muon_Iso < 5)]
        passed = np.ones(len(e), bool)
        met = np.hypot(e.MET_px, e.MET_py)
        cuts = [ak.num(jets) >= 1, ak.num(muons) == 1, e.triggerIsoMu24, met > 20]
        for number, cut in enumerate(cuts):
            passed &= ak.to_numpy(cut)
            flow[number] += passed.sum()
        own = chosen.setdefault(part.sample, [])
        own += zip(e.EventWeight[passed], ak.sum(jets, axis=1)[passed], strict=True)
    counts = result.summary["counts"]
    assert [cut["left"] for cut in counts["cut_flow"]] == flow.tolist()
    assert 0 < flow[3] < flow[0] < 1200
    assert counts["objects_removed"].keys() == {"Jet", "Muon"}
    for sample in result.summary["samples"]:
        weights = np.array(chosen[sample["name"]])[:, 0]
        assert sample["num_selected"] == len(weights)
        assert sample["sum_weights"] == pytest.approx(weights.sum(), rel=1e-6)
    ht = dataset.specs().branches["HT"]
    every = [pair[1] for own in chosen.values() for pair in own]
    assert (ht.min, ht.max) == pytest.approx((min(every), max(every)), rel=1e-6)
    assert (result.path / "bundle").is_dir()
