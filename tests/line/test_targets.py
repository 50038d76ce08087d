import json

import awkward as ak
import numpy as np
import pytest
import torch
import uproot
import yaml
from steps import served, some_events

from mlaas4hep_dask.bundle import open_bundle
from mlaas4hep_dask.config import Config
from mlaas4hep_dask.dataset import Dataset
from mlaas4hep_dask.dataset.description import description_of
from mlaas4hep_dask.dataset.planning import check_files
from mlaas4hep_dask.encode import encode
from mlaas4hep_dask.errors import ConfigError, DataError
from mlaas4hep_dask.inputs.preflight import preflight
from mlaas4hep_dask.run.stages import fit
from mlaas4hep_dask.train.network import dense
from mlaas4hep_dask.waiting import ClusterHandle

TRUTH = ["MC*"]
MET = "sqrt(MET_px**2 + MET_py**2)"


@pytest.fixture
def keys(cms_files):
    single_top, ww, wz, zz = map(str, cms_files)
    return {
        "name": "targets",
        "tree": "events",
        "samples": [
            {"name": "single_top", "label": 0, "files": single_top},
            {"name": "ww", "label": 1, "files": ww},
            {"name": "zz", "label": 2, "files": [wz, zz]},
        ],
        "branches": {"exclude": TRUTH},
        "training": {"epochs": 2, "batch_size": 200},
        "specs": {"cache": None},
    }


def unlabelled(keys, **changes):
    samples = [{k: v for k, v in sample.items() if k != "label"} for sample in keys["samples"]]
    return {**keys, "samples": samples, **changes}


def dataset_of(keys, client):
    return Dataset(Config.from_mapping(keys), client)


def trained_logits(run, bundle, events):
    """What the network of the checkpoint gives, without any of the export's code."""
    network = dense(bundle.encoding.layout.num_columns, num_outputs=bundle.objective.num_outputs)
    state = torch.load(next((run / "checkpoints").glob("*.pt")), weights_only=True)
    network.load_state_dict(state["network"])
    network.eval()
    with torch.no_grad():
        return network(torch.from_numpy(encode(events, bundle.encoding).dense())).double().numpy()


@pytest.mark.timeout(200)
def test_three_classes_from_yaml_to_served_probabilities(keys, client, cms_files, tmp_path):
    result = fit(dataset_of(keys, client), output=tmp_path / "run")
    test = result.summary["test"]
    assert result.summary["outputs"]["classes"] == ["single_top", "ww", "zz"]
    assert test["accuracy"] > 0.5  # the largest class has 36 % of the events
    confusion = np.array(test["confusion"])
    assert confusion.sum() == test["num_events"]
    assert confusion.trace() / confusion.sum() == pytest.approx(test["accuracy"])
    assert test["auc"] == pytest.approx(np.mean(list(test["auc_by_class"].values())))
    assert all(area > 0.6 for area in test["auc_by_class"].values())
    report = result.report.read_text()
    assert "Confusion matrix" in report
    assert "predicted zz" in report
    card = (tmp_path / "run/bundle/model_card.md").read_text()
    assert "Probabilities of the classes single_top, ww, zz" in card
    bundle = open_bundle(tmp_path / "run/bundle")
    events = some_events(bundle, cms_files[0])
    logits = trained_logits(tmp_path / "run", bundle, events)
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    answer = served(tmp_path / "run/bundle", events)
    assert answer["classes"] == ["single_top", "ww", "zz"]
    np.testing.assert_allclose(answer["scores"], expected, rtol=0, atol=1e-6)


@pytest.mark.timeout(200)
def test_a_regression_from_yaml_to_served_values(keys, client, cms_files, tmp_path):
    target = {"kind": "regression", "branch": ["Jet_E_sum", MET]}
    keys = unlabelled(keys, target=target, derive={"Jet_E_sum": "sum(Jet_E)", "twice": "2*MET_px"})
    keys["branches"] = {"exclude": [*TRUTH, "EventWeight"]}
    keys["training"] = {**keys["training"], "loss": "huber"}
    dataset = dataset_of(keys, client)
    inputs = {branch.name for branch in dataset.plan().branches}
    # twice gives MET_px away
    assert not inputs & {"Jet_E", "MET_px", "MET_py", "Jet_E_sum", "twice"}
    text = "not inputs unless named, since they tell of the target: Jet_E, Jet_E_sum, MET_px"
    assert text in dataset.plan().to_text()
    dataset = dataset_of(
        {**keys, "branches": {"include": ["*", "Jet_E"], **keys["branches"]}}, client
    )
    result = fit(dataset, output=tmp_path / "run")
    test = result.summary["test"]
    assert test["targets"]["Jet_E_sum"]["r2"] > 0.3  # the jets are inputs, since they are named
    assert test["r2"] == pytest.approx(np.mean([t["r2"] for t in test["targets"].values()]))
    report = result.report.read_text()
    assert "Residuals of Jet_E_sum" in report
    assert "Read by the target" in report
    bundle = open_bundle(tmp_path / "run/bundle")
    events = some_events(bundle, cms_files[0])
    truth = dataset.to_dask().y.compute()
    shift, scale = np.array(bundle.objective.shifts), np.array(bundle.objective.scales)
    np.testing.assert_allclose(shift, truth.mean(axis=0), rtol=1e-4)
    np.testing.assert_allclose(1 / scale, truth.std(axis=0), rtol=1e-4)
    expected = trained_logits(tmp_path / "run", bundle, events) / scale + shift
    answer = served(tmp_path / "run/bundle", events)
    assert answer["targets"] == ["Jet_E_sum", MET]
    np.testing.assert_allclose(answer["scores"], expected, rtol=1e-6, atol=1e-6 / scale.min())


def test_weights_sum_to_cross_section_times_luminosity(keys, client):
    cross_sections = [2.0, 3.0, 0.5]
    for sample, cross_section in zip(keys["samples"], cross_sections, strict=True):
        sample["cross_section"] = cross_section
    keys |= {"weight": "EventWeight * (1 + 0.1 * NJet)", "luminosity": 36_000.0}
    keys["samples"][0]["sum_weights"] = 1e6
    keys["samples"][1]["weight"] = 2.0
    files = [
        uproot.concatenate({f: "events"}, ["EventWeight", "NJet"])
        for f in (keys["samples"][0]["files"], keys["samples"][1]["files"])
    ]
    own = [
        ak.to_numpy(f.EventWeight).astype(float) * (1 + 0.1 * ak.to_numpy(f.NJet)) for f in files
    ]
    reference, means = None, set()
    for max_events in (100_000, 1_500):  # one partition per file, and several
        dataset = dataset_of({**keys, "partition": {"max_events": max_events}}, client)
        assert "EventWeight" not in {branch.name for branch in dataset.plan().branches}
        w = dataset.to_dask().w.compute()
        first, second, third = np.split(w.astype(float), np.cumsum([len(own[0]), len(own[1])]))
        np.testing.assert_allclose(first, own[0] * 2.0 * 36_000 / 1e6, rtol=1e-6)
        assert second.sum() == pytest.approx(2 * 3.0 * 36_000, rel=1e-6)
        np.testing.assert_allclose(second / second.sum(), own[1] / own[1].sum(), rtol=1e-6)
        assert third.sum() == pytest.approx(0.5 * 36_000, rel=1e-6)
        reference = w if reference is None else reference
        np.testing.assert_array_equal(w, reference)
        means.add(dataset.training_weights().mean)
    assert len(means) == 1


def test_the_sum_of_weights_is_that_of_events_before_the_selection(keys, client):
    for sample in keys["samples"]:
        sample["cross_section"] = 1.0
    every = dataset_of({**keys, "weight": "EventWeight"}, client)
    some = dataset_of({**keys, "weight": "EventWeight", "select": "NJet >= 2"}, client)
    assert some.factors() == every.factors()
    found = some.samples()["ww"]
    assert found.sum_weights < found.weights_read == every.samples()["ww"].sum_weights


def test_balanced_classes_have_equal_sums_in_training_only(keys, client):
    keys["weight"] = "EventWeight"
    keys["training"]["balance"] = "classes"
    dataset = dataset_of(keys, client)
    arrays = dataset.to_dask()
    y, w = arrays.y.compute().astype(int), arrays.w.compute().astype(float)
    blocks = dataset.blocks()
    split = np.concatenate(
        client.gather(
            [
                client.submit(_split, blocks.submit(ClusterHandle(client), n), pure=False)
                for n in range(len(blocks.partitions))
            ]
        )
    )
    balance, mean = dataset.training_weights()
    train = split == 0
    sums = np.bincount(y[train], weights=w[train] * np.array(balance)[y[train]])
    np.testing.assert_allclose(sums, sums[0], rtol=1e-5)
    assert sums.sum() == pytest.approx(w[train].sum(), rel=1e-5)
    assert mean == pytest.approx(sums.sum() / train.sum(), rel=1e-5)


def _split(block):
    return block.split


def write(path, **columns):
    with uproot.recreate(path) as out:
        out.mktree("t", {name: values.dtype for name, values in columns.items()})
        out["t"].extend(columns)
    return str(path)


@pytest.fixture
def made(tmp_path):
    """Keys of a data set whose labels, targets and weights are in its files."""
    rng = np.random.default_rng(3)
    samples = []
    for name, size in (("a", 400), ("b", 300)):
        x = rng.normal(size=size)
        columns = {
            "x": x,
            "noise": rng.normal(size=size),
            "flavour": rng.integers(0, 3, size).astype(np.int32),
            "w": np.where(rng.random(size) < 0.2, -1.0, 1.0),
        }
        columns["seen"] = columns["flavour"] + 0.3 * columns["noise"]
        samples.append({"name": name, "files": write(tmp_path / f"{name}.root", **columns)})
    return {
        "name": "made",
        "tree": "t",
        "samples": samples,
        "target": {"branch": "flavour", "classes": ["light", "c", "b"]},
        "weight": "w",
        "training": {"epochs": 3, "batch_size": 50, "learning_rate": 0.01},
        "model": {"kwargs": {"dropout": 0.0}},
        "specs": {"cache": None},
    }


def test_distributions_by_class_are_those_of_the_objects_that_are_kept(cms_files, client):
    keys = {
        "tree": "events",
        "samples": [{"name": "ww", "files": str(cms_files[1])}],
        "target": {"branch": "where(NMuon > 0, 1, 0)", "classes": ["none", "muons"]},
        "branches": {"include": ["Jet_Px"]},
        "encode": {"width": {"Jet": 1}, "normalisation": "none"},
        "specs": {"cache": None},
    }
    (shown,) = dataset_of(keys, client).distributions()
    array = uproot.open(cms_files[1])["events"].arrays(["NMuon", "NJet"])
    for label, own in (("0", array[array.NMuon == 0]), ("1", array[array.NMuon > 0])):
        assert shown.raw["Jet_Px"].populations[label].sum() == ak.sum(own.NJet)
    for found, expected in ((shown.raw, array.NJet), (shown.encoded, array.NJet > 0)):
        histogram = found["Jet_Px"]
        inside = sum(counts.sum() for counts in histogram.contents.values())
        assert inside + sum(histogram.outside) == ak.sum(expected)


def test_labels_and_negative_weights_from_branches(made, client, tmp_path):
    results = []
    for max_events in (1_000, 90):
        keys = {**made, "partition": {"max_events": max_events}}
        dataset = dataset_of(keys, client)
        assert dataset.plan().selection.targets == ["flavour"]
        results.append([dataset.objective(), dataset.training_weights(), dataset.class_sums()])
    assert results[0] == results[1]
    result = fit(dataset, output=tmp_path / "run")
    summary = result.summary
    array = uproot.concatenate({s["files"]: "t" for s in made["samples"]}, ["flavour", "w"])
    counts = np.bincount(ak.to_numpy(array.flavour)).tolist()
    assert [entry["num_events"] for entry in summary["classes"]] == counts
    assert sum(e["sum_weights"] for e in summary["classes"]) == pytest.approx(ak.sum(array.w))
    assert sum(s["num_negative"] for s in summary["samples"]) == ak.sum(array.w < 0)
    assert any("have negative weights" in note for note in summary["counts"]["notes"])
    assert summary["test"]["accuracy"] > 0.7  # 'seen' tells nearly all
    confusion = np.array(summary["test"]["confusion"])
    assert confusion.sum() < summary["test"]["num_events"]  # negative weights count against


def test_metrics_do_not_depend_on_the_number_of_ranks(made, client, tmp_path):
    # With a learning rate of next to nothing all ranks measure the initial network.
    made["training"] |= {"epochs": 1, "learning_rate": 1e-30}
    found = []
    for ranks in (1, 2):
        made["training"]["ranks"] = ranks
        summary = fit(dataset_of(made, client), output=tmp_path / f"run{ranks}").summary
        found.append(summary["test"])
    one, two = found
    assert one["num_events"] == two["num_events"]
    np.testing.assert_allclose(one["confusion"], two["confusion"], rtol=1e-6)
    assert one["loss"] == pytest.approx(two["loss"], rel=1e-5)
    assert one["auc_by_class"] == pytest.approx(two["auc_by_class"], rel=1e-6)


BAD = {
    "a class beyond the last": ({"target": {"branch": "flavour", "classes": ["light", "c"]}},
                                r"[ab]\.root: entry \d+: target.branch 'flavour' is 2, expected"),
    "a label that is not whole": ({"target": {"branch": "seen", "classes": ["p", "q"]}},
                                  r"entry \d+: target.branch 'seen' is .*whole number from 0 to 1"),
    "a target that is NaN": ({"target": {"kind": "regression", "branch": "log(x)"}},
                             r"entry \d+: target.branch 'log\(x\)' is nan, expected a finite"),
    "a weight that is infinite": ({"weight": "1 / (flavour - 1)"},
                                  r"entry \d+: weight '1 / \(flavour - 1\)' is inf, exp"),
}  # fmt: skip


@pytest.mark.parametrize("fault", BAD)
def test_a_bad_label_or_weight_names_file_and_entry(made, client, fault):
    change, message = BAD[fault]
    with pytest.raises(DataError, match=message) as caught:
        dataset_of({**made, **change}, client).specs()
    values = uproot.open(caught.value.file)["t"].arrays(library="np")
    bad = {
        "a class beyond the last": values["flavour"] == 2,
        "a label that is not whole": values["seen"] != np.floor(values["seen"]),
        "a target that is NaN": values["x"] < 0,
        "a weight that is infinite": values["flavour"] == 1,
    }
    assert caught.value.entry == np.flatnonzero(bad[fault])[0]


def test_weights_of_events_that_are_not_selected_are_finite_only_where_their_sum_counts(
    made, client
):
    made |= {"weight": "1 / flavour", "select": "flavour > 0"}
    expected = []
    for sample in made["samples"]:
        flavour = uproot.open(sample["files"])["t"]["flavour"].array(library="np")
        expected.append(1 / flavour[flavour > 0])
    lazy = dataset_of(made, client).to_dask()
    np.testing.assert_allclose(client.compute(lazy.w).result(), np.concatenate(expected))

    for sample in made["samples"]:
        sample |= {"cross_section": 2.0, "sum_weights": 50.0}
    lazy = dataset_of(made, client).to_dask()
    np.testing.assert_allclose(
        client.compute(lazy.w).result(), np.concatenate(expected) / 25, rtol=1e-6
    )

    del made["samples"][1]["sum_weights"]
    with pytest.raises(DataError, match=r"entry \d+: weight '1 / flavour' is inf"):
        dataset_of(made, client).specs()


def test_a_sum_of_weights_that_is_0_is_kept_in_the_cache(tmp_path, client):
    folder = str(tmp_path / "cache")
    columns = {"x": np.array([1.0, 2.0]), "w": np.array([-1.0, 1.0])}
    more = {"x": np.array([3.0, 4.0, 5.0]), "w": np.array([1.0, 1.0, 1.0])}
    files = [write(tmp_path / "a.root", **columns), write(tmp_path / "b.root", **more)]
    other = write(tmp_path / "c.root", **more)
    keys = {
        "tree": "t",
        "samples": [
            {"name": "s", "label": 1, "files": files, "cross_section": 6.0},
            {"name": "b", "label": 0, "files": other, "cross_section": 6.0},
        ],
        "weight": "w",
        "select": "x > 1",
        "specs": {"cache": folder},
    }
    for num_cached in (0, 8):
        dataset = dataset_of(keys, client)
        assert dataset.factors() == {"s": 2.0, "b": 2.0}
        assert dataset.num_cached() == num_cached


def test_a_selection_leaves_events_of_no_class_out(made, client):
    made |= {"target": {"branch": "flavour", "classes": ["light", "c"]}, "select": "flavour < 2"}
    samples = dataset_of(made, client).samples()
    assert all(sample.num_selected < sample.num_read for sample in samples.values())


DERIVED = {"half": "flavour / 2", "kind": "half * 2", "third": "half / 3", "heavy": "w * 3"}


def test_what_target_and_weight_are_made_of_is_no_input_by_wildcard(made, tmp_path):
    made |= {"derive": DERIVED, "weight": "heavy"}
    made["target"] |= {"branch": "kind"}
    plan = check_files(
        preflight(description_of(config := Config.from_mapping(made))),
        config.partition,
        config.max_events,
    )
    assert [branch.name for branch in plan.branches] == ["noise", "seen", "x"]
    assert plan.selection.targets == ["flavour", "half", "kind", "third"]
    assert plan.selection.weights == ["heavy", "w"]
    assert "since they tell of the target: flavour, half, kind, third" in plan.to_text()
    assert not plan.notes
    made["branches"] = {"include": ["*", "flavour", "w"]}
    plan = check_files(
        preflight(description_of(config := Config.from_mapping(made))),
        config.partition,
        config.max_events,
    )
    assert [branch.name for branch in plan.branches] == ["flavour", "noise", "seen", "w", "x"]
    first, second = plan.notes
    assert first.startswith("WARNING: target is made of flavour or of what it is made of: an input")
    assert second.startswith("WARNING: weight is made of w or of what")
    made["branches"] = {"include": ["flavour*", "x", "kind"]}
    with pytest.raises(ConfigError, match=r"'kind' cannot be an input: target.branch reads it"):
        preflight(description_of(Config.from_mapping(made)))
    made["branches"] = {"include": ["flavou?"]}
    with pytest.raises(ConfigError, match=r"target.branch reads branch 'flavour', which"):
        preflight(description_of(Config.from_mapping(made)))


def test_what_a_function_reads_for_the_target_is_no_input_by_wildcard(made, tmp_path):
    (tmp_path / "kinds.py").write_text(
        "def kinds(events):\n    events['kind'] = events.flavour * 1\n"
        "    events['like'] = events.flavour * 2\n    return events\n"
    )
    made |= {"function": {"callable": "kinds.py:kinds"}, "branches": {"include": ["*", "like"]}}
    made["target"] |= {"branch": "kind"}
    config = Config.from_mapping(made, base=tmp_path)
    plan = check_files(preflight(description_of(config)), config.partition, config.max_events)
    assert plan.selection.inputs == ["like", "noise", "seen", "x"]
    (note,) = plan.notes
    assert "makes kind, which the target is made of, and also the inputs like: see that" in note


UNFIT = {
    "a label beside target.branch": (
        lambda keys: keys["samples"][0].update(label=1), r"samples\[0\].label: not wanted"),
    "no names of classes": (
        lambda keys: keys["target"].pop("classes"), r"target\.classes: expected the names"),
    "an absent branch": (
        lambda keys: keys["target"].update(branch="flavor"), r"target\.branch: .*'flavor'.*did"),
    "an input that is the target": (
        lambda keys: keys.update(branches={"include": ["x", "flavour"]}), "target.branch reads it"),
    "a luminosity without cross sections": (
        lambda keys: keys.update(luminosity=3.0), "luminosity: has no use"),
    "balance of a regression": (
        lambda keys: keys.update(target={"kind": "regression", "branch": "x"},
                                 training={"balance": "classes"}), "training.balance"),
    "a regression of nothing": (
        lambda keys: keys.update(target={"kind": "regression"}), r"target\.branch: missing"),
    "no expression": (
        lambda keys: keys.update(weight="w *"), "weight: in 'w"),
}  # fmt: skip


@pytest.mark.parametrize("fault", UNFIT)
def test_an_unfit_target_is_refused_before_anything_runs(made, fault):
    change, message = UNFIT[fault]
    change(made)
    with pytest.raises(ConfigError, match=message):
        Dataset(Config.from_mapping(made), client=None).plan()


def test_a_constant_target_is_an_error(made, client):
    made["target"] = {"kind": "regression", "branch": "0 * x + 1"}
    with pytest.raises(DataError, match="nothing to learn"):
        dataset_of(made, client).objective()


def test_events_of_one_class_alone_are_an_error(made, client):
    with pytest.raises(DataError, match="'flavour' is class 'c' in every selected event"):
        dataset_of({**made, "select": "flavour == 1"}, client).objective()


def test_a_class_without_events_is_noted(made, client, tmp_path):
    training = {"epochs": 1, "ranks": 1}
    dataset = dataset_of({**made, "select": "flavour != 1", "training": training}, client)
    notes = fit(dataset, output=tmp_path / "run").summary["counts"]["notes"]
    assert "WARNING: no selected event is of class c: the network never saw one" in notes


def test_weights_that_cannot_be_balanced_are_an_error(made, client):
    made["weight"] = "where(flavour == 1, -1, 1)"
    made["training"]["balance"] = "classes"
    with pytest.raises(DataError, match=r"class 'c' sum to -\d+ over the training events"):
        dataset_of(made, client).training_weights()


def test_the_summary_and_the_yaml_of_a_run_can_be_read_again(made, client, tmp_path):
    fit(
        dataset_of({**made, "training": {"epochs": 1, "ranks": 1}}, client), output=tmp_path / "run"
    )
    text = (tmp_path / "run/config.yaml").read_text()
    assert Config.from_mapping(yaml.safe_load(text)).target.branch == ["flavour"]
    manifest = json.loads((tmp_path / "run/bundle/manifest.json").read_text())
    assert manifest["output"]["classes"] == ["light", "c", "b"]


@pytest.mark.parametrize("key", ["weight", "target"])
def test_a_weight_or_target_of_a_branch_that_is_no_input_says_why(edge_cases, key):
    samples = [
        {"name": f"s{label}", "label": label, "files": str(edge_cases / f"faults/n02_{label}.root")}
        for label in (0, 1)
    ]
    keys = {"samples": samples, "weight": "txt + 1"}
    if key == "target":
        files = [sample["files"] for sample in samples]
        keys = {
            "samples": [{"name": "all", "files": files}],
            "target": {"branch": "txt + 1", "kind": "regression"},
        }
    with pytest.raises(ConfigError, match="no branch 'txt'; the branch 'txt' is a string"):
        preflight(description_of(Config.from_mapping(keys)))
