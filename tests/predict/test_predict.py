import io
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import takewhile

import awkward as ak
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import uproot
from distributed import Client, LocalCluster
from steps import Runs, await_that, kill_all, predict, rows_of

from mlaas4hep_dask.bundle import open_bundle, write_bundle
from mlaas4hep_dask.bundle.golden import Golden
from mlaas4hep_dask.cluster import connect
from mlaas4hep_dask.config import Cluster, Config, given_of
from mlaas4hep_dask.dataset import Dataset
from mlaas4hep_dask.derive.recipe import Recipe
from mlaas4hep_dask.encode import Encoding, decode, encode
from mlaas4hep_dask.errors import ClusterError, MLaaSError
from mlaas4hep_dask.events import Branch, Events
from mlaas4hep_dask.events.events import concatenate, offsets_of
from mlaas4hep_dask.export import to_torchscript
from mlaas4hep_dask.objective import BINARY, Classes, Regression, TwoClasses
from mlaas4hep_dask.predict.cli import main
from mlaas4hep_dask.predict.cli import predict as verb
from mlaas4hep_dask.predict.request import check_request
from mlaas4hep_dask.predict.scoring import score_names
from mlaas4hep_dask.predict.stream import LEAST_AHEAD, in_order
from mlaas4hep_dask.run import fit
from mlaas4hep_dask.score.opening import open_scorer
from mlaas4hep_dask.score.parts import Records
from mlaas4hep_dask.specs.measure import measure
from mlaas4hep_dask.train.network import dense, mlp
from mlaas4hep_dask.waiting import ClusterHandle, Patience
from mlaas4hep_dask.writer import write_events

pytestmark = pytest.mark.cluster

INPUTS = ("MET_px", "MET_py", "NJet", "Jet_Px", "Jet_btag", "Muon_Pz", "Muon_Charge")


def make_bundle(path, events, network_of, *, recipe=None, example=None, **options):
    """A bundle of a network for these events; `network_of` builds it from the number of columns."""
    specs = measure(events, sample="all")
    options = {"normalisation": "minmax", **options}
    encoding = Encoding.from_specs(specs, **options)
    torch.manual_seed(0)
    network = network_of(encoding.layout.num_columns).eval()
    golden = None
    if recipe is None:
        few = events.to_awkward()[:50]
        with torch.no_grad():
            rows = torch.from_numpy(encode(Events.from_awkward(few), encoding).dense())
            scores = torch.sigmoid(network(rows)).reshape(-1).numpy()
        sent = tuple(ak.to_list(ak.nan_to_none(few)))
        golden = Golden(sent, scores, BINARY.as_json())
    write_bundle(
        path,
        name="model",
        model=to_torchscript(network, encoding),
        specs=specs,
        encode=options,
        metrics={},
        data={"tree": "events"},
        card="a test",
        recipe=recipe,
        example=example,
        golden=golden,
    )
    return network


@pytest.fixture(scope="module")
def inputs(cms_plans, cms_parts):
    """The events of each file, with the inputs alone."""
    branches = tuple(cms_plans[0].branches[name] for name in INPUTS)
    parts = []
    for plan in cms_plans:
        events = concatenate(cms_parts[plan.sample])
        used = {branch.collection for branch in branches} - {None}
        parts.append(
            Events(
                len(events),
                branches,
                {name: events.contents[name] for name in INPUTS},
                {name: events.offsets[name] for name in used},
            )
        )
    return parts


@pytest.fixture(scope="module")
def bundle(tmp_path_factory, inputs):
    """A bundle whose width cuts objects off, and its network."""
    path = tmp_path_factory.mktemp("bundle") / "bundle"
    network = make_bundle(path, concatenate(inputs[:2]), mlp, width=3)
    return path, network


@pytest.fixture(scope="module")
def expected(bundle, inputs):
    """Scores of all events, by the network itself."""
    path, network = bundle
    encoding = open_bundle(path).encoding
    with torch.no_grad():
        rows = torch.from_numpy(encode(concatenate(inputs), encoding).dense())
        return torch.sigmoid(network(rows)).reshape(-1).numpy()


@pytest.mark.parametrize("suffix", [".root", ".parquet"])
def test_every_event_of_the_files_has_the_score_of_the_network(
    tmp_path, client, bundle, expected, cms_files, inputs, suffix
):
    path, _ = bundle
    output = tmp_path / f"scores{suffix}"
    done = predict(client, path, cms_files, output, patterns=["Jet_P*", "EventWeight"])
    assert done.num_scored == len(expected) == 16_052
    assert done.num_not_finite == done.num_skipped == 0
    found = rows_of(output)
    assert found["score"].type.content.primitive == "float32"
    np.testing.assert_allclose(found["score"], expected, rtol=0, atol=1e-6)
    sizes = [len(part) for part in inputs]
    np.testing.assert_array_equal(found["source_file"], np.repeat(np.arange(4), sizes))
    np.testing.assert_array_equal(
        found["source_entry"], np.concatenate([np.arange(size) for size in sizes])
    )
    for name in ("Jet_Px", "Jet_Py", "EventWeight"):
        whole = ak.concatenate([uproot.open(file)["events"][name].array() for file in cms_files])
        assert ak.array_equal(found[name], whole)
    encoded = encode(concatenate(inputs), open_bundle(path).encoding)
    assert done.counts == encoded.counts
    assert done.counts.truncated
    assert done.counts.out_of_range  # the bundle knows two of the four files


def test_the_score_of_an_event_is_the_one_that_the_server_gives(
    tmp_path, client, bundle, cms_files, inputs
):
    path, _ = bundle
    predict(client, path, cms_files[:1], tmp_path / "scores.root", max_events=200)
    objects = ak.to_list(inputs[0].to_awkward()[:200])
    (served,) = open_scorer(path).score([Records(objects)])
    found = rows_of(tmp_path / "scores.root")["score"]
    assert len(found) == 200
    np.testing.assert_allclose(found, served.values, rtol=0, atol=1e-6)


IDENTIFIED = (
    Branch("event", "flat", "uint64"),
    Branch("run", "flat", "uint32"),
    Branch("luminosityBlock", "flat", "int16"),
    Branch("x", "flat", "float32", None, "GeV"),
    Branch("nJet", "flat", "uint32"),
    Branch("Jet_pt", "jagged", "float32", "Jet"),
)


def identified(num_events, *, seed=0):
    """Events with identifiers that no float64 holds, and with a value that is not finite."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 4, num_events)
    x = rng.normal(size=num_events).astype(np.float32)
    x[0] = np.nan
    return Events(
        num_events,
        IDENTIFIED,
        {
            "event": np.uint64(2**64 - 1) - np.arange(num_events, dtype=np.uint64),
            "run": np.full(num_events, 2**32 - 1, dtype=np.uint32),
            "luminosityBlock": rng.integers(-(2**15), 2**15, num_events, dtype=np.int16),
            "x": x,
            "nJet": counts.astype(np.uint32),
            "Jet_pt": rng.exponential(30, counts.sum()).astype(np.float32),
        },
        {"Jet": offsets_of(counts)},
    )


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Three files with identifiers, and a bundle of a network of x and Jet_pt."""
    folder = tmp_path_factory.mktemp("small")
    files = [folder / f"{name}.root" for name in "abc"]
    for number, file in enumerate(files):
        with write_events(file, IDENTIFIED, tree="events") as out:
            out.append(identified(1_000, seed=number))
    events = identified(1_000)
    branches = tuple(branch for branch in IDENTIFIED if branch.name in ("x", "Jet_pt"))
    chosen = {branch.name: events.contents[branch.name] for branch in branches}
    make_bundle(folder / "bundle", Events(1_000, branches, chosen, events.offsets), mlp)
    return folder / "bundle", files


def note_of(path):
    """What an output tells of itself."""
    if path.suffix == ".parquet":
        return json.loads(pq.read_metadata(path).metadata[b"mlaas4hep_dask"])
    with uproot.open(path) as file:
        return json.loads(file["mlaas4hep_dask"])


@pytest.mark.parametrize("suffix", [".root", ".parquet"])
def test_identifiers_are_copied_with_every_bit(tmp_path, client, small, suffix):
    path, files = small
    output = tmp_path / f"out{suffix}"
    done = predict(client, path, files, output, patterns=["nJet", "Jet_pt"])
    assert done.branches == (
        *("source_file", "source_entry", "run", "event", "luminosityBlock"),
        *("nJet", "Jet_pt", "score"),
    )
    found = rows_of(output)
    whole = concatenate([identified(1_000, seed=number) for number in range(3)])
    for name in ("run", "event", "luminosityBlock", "nJet"):
        assert ak.to_numpy(found[name]).dtype == whole.contents[name].dtype
        np.testing.assert_array_equal(found[name], whole.contents[name])
    assert ak.array_equal(found["Jet_pt"], whole.to_awkward()["Jet_pt"])
    assert done.counts.not_finite == {"x": 3}


def test_the_output_tells_where_it_comes_from(tmp_path, client, small):
    path, files = small
    output = tmp_path / "out.root"
    predict(client, path, [*files[1:], files[0]], output, max_events=1_500)
    note = note_of(output)
    with uproot.open(output) as file:
        assert file["events"].num_entries == 1_500
        assert file["events"]["source_file"].array().to_list() == [0] * 1_000 + [1] * 500
    assert [entry["file"] for entry in note["files"]] == [
        *(str(file) for file in files[1:]),
        str(files[0]),
    ]
    assert note["model"] == "model"
    assert note["num_scored"] == 1_500
    assert note["not_finite"] == {"x": 2}


def test_derived_branches_and_object_cuts_are_applied_to_what_is_scored(tmp_path, client, small):
    _, files = small
    recipe = Recipe.of(
        {branch.name: branch for branch in IDENTIFIED},
        derive={"HT": "sum(Jet_pt)"},
        objects={"Jet": "Jet_pt > 20"},
        select=["nJet >= 1"],
    )
    parts = [identified(1_000, seed=number) for number in range(3)]
    inputs = recipe.prepare(concatenate(parts), ["HT", "Jet_pt", "nJet"], select=False).events
    network = make_bundle(tmp_path / "bundle", inputs, mlp, recipe=recipe)
    predict(client, tmp_path / "bundle", files, tmp_path / "out.root", patterns=["Jet_pt", "nJet"])
    found = rows_of(tmp_path / "out.root")
    jets = concatenate(parts).to_awkward()["Jet_pt"]
    assert ak.array_equal(found["Jet_pt"], jets)  # what is copied is not cut
    kept = jets[jets > 20]
    width = ak.max(ak.num(kept))
    padded = ak.to_numpy(ak.fill_none(ak.pad_none(kept, width), np.nan))
    columns = [ak.sum(kept, axis=1), ak.num(kept), *padded.T]  # HT, nJet, Jet_pt[0], …
    x = np.stack([(column - np.nanmin(column)) for column in map(np.asarray, columns)], axis=1)
    x[:, 2:] = padded - np.nanmin(padded)
    scale = np.array([np.nanmax(x[:, 0]), np.nanmax(x[:, 1]), *[np.nanmax(x[:, 2:])] * width])
    with torch.no_grad():
        rows = torch.from_numpy(np.nan_to_num(x / scale).astype(np.float32))
        scores = torch.sigmoid(network(rows)).reshape(-1).numpy()
    np.testing.assert_allclose(found["score"], scores, rtol=0, atol=1e-5)


def test_what_a_cut_needs_is_that_of_all_objects_though_the_model_does_not_need_the_cut(
    tmp_path, client
):
    branches = tuple(Branch(f"{name}_pt", "jagged", "float32", name) for name in ("Jet", "Muon"))
    rng = np.random.default_rng(0)
    offsets = {name: offsets_of(rng.integers(0, 4, 200)) for name in ("Jet", "Muon")}
    contents = {
        f"{name}_pt": rng.exponential(30, own[-1]).astype(np.float32)
        for name, own in offsets.items()
    }
    events = Events(200, branches, contents, offsets)
    recipe = Recipe.of(
        {branch.name: branch for branch in branches},
        derive={"num_soft": "count(Muon_pt > 10)"},
        objects={"Jet": "Jet_pt > 10 * num_soft", "Muon": "Muon_pt > 25"},
        select=["count(Jet_pt) >= 1"],
    )
    inputs = recipe.prepare(events, ["num_soft"]).events
    raw = ak.to_list(events.to_awkward())
    network = make_bundle(tmp_path / "bundle", inputs, mlp, recipe=recipe, example=raw[0])
    with write_events(tmp_path / "in.root", branches, tree="events") as out:
        out.append(events)
    predict(client, tmp_path / "bundle", [tmp_path / "in.root"], tmp_path / "out.root")
    number = ak.to_numpy(ak.sum(events.to_awkward().Muon_pt > 10, axis=1)).astype(np.float32)
    low, high = np.float32([f(inputs.contents["num_soft"]) for f in (np.min, np.max)])
    with torch.no_grad():
        rows = torch.from_numpy((number[:, None] - low) / np.float32(high - low))
        scores = torch.sigmoid(network(rows)).reshape(-1).numpy()
    np.testing.assert_allclose(rows_of(tmp_path / "out.root")["score"], scores, rtol=0, atol=1e-5)
    (served,) = open_scorer(tmp_path / "bundle").score([Records(raw)])
    np.testing.assert_allclose(served.values, scores, rtol=0, atol=1e-5)


@pytest.mark.parametrize("cut", ["(Jet_jetId & 2) > 0", "Jet_tight"])
def test_a_recipe_that_refuses_nulls_is_served_as_it_predicts(tmp_path, client, cut):
    branches = (
        Branch("Jet_pt", "jagged", "float32", "Jet"),
        Branch("Jet_jetId", "jagged", "int32", "Jet"),
        Branch("Jet_tight", "jagged", "bool", "Jet"),
        Branch("number", "flat", "int32"),
        Branch("flag", "flat", "bool"),
    )
    rng = np.random.default_rng(0)
    offsets = offsets_of(rng.integers(0, 4, 200))
    contents = {
        "Jet_pt": rng.exponential(30, offsets[-1]).astype(np.float32),
        "Jet_jetId": rng.integers(0, 4, offsets[-1]).astype(np.int32),
        "Jet_tight": rng.random(offsets[-1]) < 0.5,
        "number": rng.integers(0, 9, 200).astype(np.int32),
        "flag": rng.random(200) < 0.5,
    }
    events = Events(200, branches, contents, {"Jet": offsets})
    recipe = Recipe.of(
        {branch.name: branch for branch in branches},
        derive={"num_tight": "count(Jet_tight)"},
        objects={"Jet": cut},
        select=[],
    )
    keep = ["Jet_pt", "number", "flag", "num_tight"]
    prepared = recipe.prepare(events, keep, select=False).events
    raw = ak.to_list(events.to_awkward())
    make_bundle(tmp_path / "bundle", prepared, mlp, recipe=recipe, example=raw[0])
    with write_events(tmp_path / "in.root", branches, tree="events") as out:
        out.append(events)
    predict(client, tmp_path / "bundle", [tmp_path / "in.root"], tmp_path / "out.root")
    model = open_scorer(tmp_path / "bundle")
    expected = rows_of(tmp_path / "out.root")["score"]
    # A null in a branch that is an input alone, of the dtypes that the recipe reads.
    harmless = {**raw[0], "number": None, "flag": None}
    (scored,) = model.score([Records([*raw, harmless])])
    np.testing.assert_allclose(scored.values[:-1], expected, rtol=0, atol=1e-6)
    bad = {**raw[0], "Jet_pt": [30.0], "Jet_jetId": [None], "Jet_tight": [None]}
    good, refused = model.score([Records(raw), Records([raw[0], bad])])
    np.testing.assert_allclose(good.values, expected, rtol=0, atol=1e-6)
    assert "event 1, branch 'Jet_tight': null" in str(refused)


def test_files_to_score_are_read_as_the_options_say(tmp_path, client):
    rng = np.random.default_rng(0)
    branches = (Branch("x", "flat", "float32"), Branch("y", "flat", "float32"))
    contents = {branch.name: rng.normal(size=50).astype(np.float32) for branch in branches}
    events = Events(50, branches, contents, {})
    make_bundle(tmp_path / "bundle", events, mlp)
    with write_events(tmp_path / "in.root", branches, tree="events") as out:
        out.append(events)
    lines = ["x;y", *(f"{x};{y}" for x, y in zip(*contents.values(), strict=True))]
    (tmp_path / "in.csv").write_text("\n".join(lines) + "\n")
    outputs = [tmp_path / "root.root", tmp_path / "csv.root"]
    predict(client, tmp_path / "bundle", [tmp_path / "in.root"], outputs[0])
    with pytest.raises(MLaaSError, match="'x' is missing"):
        predict(client, tmp_path / "bundle", [tmp_path / "in.csv"], outputs[1])
    reading = given_of(["reading.delimiter=;"]).reading
    predict(client, tmp_path / "bundle", [tmp_path / "in.csv"], outputs[1], reading=reading)
    first, second = (rows_of(output)["score"] for output in outputs)
    np.testing.assert_allclose(first, second, rtol=0, atol=1e-6)


class Scorer(torch.nn.Module):
    """A module with the methods of a bundle's model, whose outputs are the network's own."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, raw: torch.Tensor) -> torch.Tensor:
        return raw

    @torch.jit.export
    def score_encoded(self, x: torch.Tensor, missing: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        return self.network(x)


def scripted(network):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch.jit is our contract
        buffer = io.BytesIO()
        torch.jit.save(torch.jit.script(Scorer(network.eval())), buffer)
    return buffer.getvalue()


def with_network(path, folder, network, *, objective=BINARY):
    """A copy of a bundle with another network, which gives scores itself."""
    bundle = open_bundle(path)
    write_bundle(
        folder,
        name="autoencoder",
        model=scripted(network),
        specs=bundle.specs,
        encode=bundle.manifest["encode"],
        metrics={},
        data={"tree": "events"},
        card="a test",
        objective=objective,
    )
    return folder


def test_parquet_and_json_lines_are_scored_as_the_same_events_in_root(
    tmp_path, client, bundle, inputs, expected
):
    path, _ = bundle
    events = inputs[0]
    with write_events(tmp_path / "a.parquet", events.branches) as out:
        out.append(events)
    lines = [json.dumps(event) for event in ak.to_list(events.to_awkward())]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    for name in ("a.parquet", "a.jsonl"):
        output = tmp_path / "out.parquet"
        predict(client, path, [tmp_path / name], output, tree="events", overwrite=True)
        found = rows_of(output)["score"]
        np.testing.assert_allclose(found, expected[: len(events)], rtol=0, atol=1e-6)


def test_each_of_several_outputs_has_a_branch(tmp_path, client, small):
    path, files = small
    columns = open_bundle(path).encoding.layout.num_columns
    torch.manual_seed(1)
    network = torch.nn.Linear(columns, 3)
    objective = Regression(("a", "b", "c"), (0.0,) * 3, (1.0,) * 3)
    folder = with_network(path, tmp_path / "bundle", network, objective=objective)
    predict(client, folder, files[:1], tmp_path / "out.root", tree="events")
    found = rows_of(tmp_path / "out.root")
    bundle = open_bundle(path)
    branches = bundle.encoding.branches
    events = Events(1_000, branches, identified(1_000).contents, identified(1_000).offsets)
    with torch.no_grad():
        scores = network(torch.from_numpy(encode(events, bundle.encoding).dense())).numpy()
    for number, name in enumerate("abc"):
        np.testing.assert_allclose(found[f"predicted_{name}"], scores[:, number], rtol=0, atol=1e-6)


def test_identifiers_are_those_of_the_training(tmp_path, client, small):
    path, files = small
    bundle = shutil.copytree(path, tmp_path / "bundle")
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["data"] = {"tree": "events", "identifiers": ["ev*"]}
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    done = predict(client, bundle, files[:1], tmp_path / "out.root")
    assert done.branches == ("source_file", "source_entry", "event", "score")


def test_branches_may_be_asked_for_more_than_once():
    given = ["bundle", "a.root", "--branches", "x", "--branches", "y", "z", "--output", "o.root"]
    parameters = verb.make_context("predict", given).params
    assert parameters["branches"] == ("x", "y", "z")
    assert parameters["files"] == ("a.root",)


def test_branches_are_named_after_classes_and_targets():
    assert score_names(BINARY, 1) == ("score",)
    assert score_names(BINARY, 2) == ("score_0", "score_1")
    assert score_names(TwoClasses(("QCD", "ttH")), 1) == ("score",)
    assert score_names(Classes(("QCD", "tt-H", "W.b")), 3) == (
        *("score_QCD", "score_tt_H", "score_W_b"),
    )
    assert score_names(Regression(("mass",)), 1) == ("predicted_mass",)
    assert score_names(Classes(("a-b", "a.b", "c")), 3) == ("score_0", "score_1", "score_2")


TASKS = {
    "three classes": {"classes": ["top", "W-W", "other"]},
    "a regression": {"kind": "regression", "branch": ["HT", "x**2"], "loss": "huber"},
}


@pytest.fixture(scope="module", params=TASKS)
def trained(request, tmp_path_factory, client, small):
    """A run on the three files with identifiers, and what its own network gives for them."""
    _, files = small
    target = TASKS[request.param]
    keys = {
        "name": "trained",
        "tree": "events",
        "samples": [
            {"name": file.stem, "files": str(file)}
            | ({"label": number} if "classes" in target else {})
            for number, file in enumerate(files)
        ],
        "target": target,
        "branches": {"include": ["Jet_pt", "nJet"]},
        "encode": {"normalisation": "minmax"},
        "training": {"epochs": 1, "batch_size": 100},
        "specs": {"cache": None},
    }
    if "classes" not in target:
        keys["derive"] = {"HT": "sum(Jet_pt)"}
        keys["select"] = "isfinite(x)"  # which the target needs, and a prediction does not
    folder = tmp_path_factory.mktemp("trained") / "run"
    result = fit(Dataset(Config.from_mapping(keys), client), output=folder)
    return request.param, result.bundle, given_by_hand(folder, result.bundle, files)


def given_by_hand(run, bundle, files):
    """Outputs of a checkpoint's network for padded rows that are made with awkward alone."""
    jets = ak.concatenate([uproot.open(file)["events"]["Jet_pt"].array() for file in files])
    known = bundle.specs.branches["Jet_pt"]
    width = bundle.specs.max_multiplicity("Jet")
    padded = ak.to_numpy(ak.fill_none(ak.pad_none(jets, width, clip=True), np.nan))
    scaled = np.nan_to_num((padded - known.min) / (known.max - known.min))
    counts = ak.to_numpy(ak.num(jets))[:, None] / bundle.specs.branches["nJet"].max
    by_branch = {"nJet": counts, "Jet_pt": scaled}
    order = dict.fromkeys(column.partition("[")[0] for column in bundle.encoding.columns())
    rows = np.concatenate([by_branch[name] for name in order], axis=1).astype(np.float32)
    network = dense(rows.shape[1], num_outputs=bundle.objective.num_outputs).eval()
    state = torch.load(next((run / "checkpoints").glob("*.pt")), weights_only=True)
    network.load_state_dict(state["network"])
    with torch.no_grad():
        return network(torch.from_numpy(rows)).double().numpy()


@pytest.mark.parametrize("suffix", [".root", ".parquet"])
def test_a_trained_model_of_several_outputs_scores_every_event_with_its_identifiers(
    tmp_path, client, small, trained, suffix
):
    _, files = small
    task, bundle, given = trained
    if task == "three classes":
        names = ["score_top", "score_W_W", "score_other"]
        wanted = np.exp(given) / np.exp(given).sum(axis=1, keepdims=True)
    else:
        names = ["predicted_HT", "predicted_x__2"]
        wanted = given / np.array(bundle.objective.scales) + np.array(bundle.objective.shifts)
    output = tmp_path / f"scores{suffix}"
    done = predict(client, bundle.path, files, output)
    assert done.branches == (
        *("source_file", "source_entry", "run", "event", "luminosityBlock"),
        *names,
    )
    assert done.num_scored == 3_000
    assert done.num_not_finite == 0
    found = rows_of(output)
    for number, name in enumerate(names):
        assert ak.to_numpy(found[name]).dtype == np.float32
        unit = np.ptp(wanted[:, number])
        assert unit > 1e-3  # the network does tell events apart
        np.testing.assert_allclose(found[name], wanted[:, number], rtol=1e-6, atol=1e-5 * unit)
    whole = concatenate([identified(1_000, seed=number) for number in range(3)])
    for name in ("run", "event", "luminosityBlock"):
        assert ak.to_numpy(found[name]).dtype == whole.contents[name].dtype
        np.testing.assert_array_equal(found[name], whole.contents[name])
    np.testing.assert_array_equal(found["source_file"], np.repeat(range(3), 1_000))
    assert bundle.manifest["data"]["identifiers"][:2] == ["run", "event"]
    assert note_of(output)["outputs"] == dict(zip(names, bundle.objective.names, strict=True))


def autoencoder(columns, *, hidden=None):
    if hidden is not None:
        return torch.nn.Sequential(
            torch.nn.Linear(columns, hidden), torch.nn.ReLU(), torch.nn.Linear(hidden, columns)
        )
    network = torch.nn.Linear(columns, columns)
    torch.nn.init.eye_(network.weight)
    torch.nn.init.zeros_(network.bias)
    return network


@pytest.mark.parametrize("suffix", [".root", ".parquet"])
def test_a_trained_autoencoder_gives_jagged_events_back(
    tmp_path, client, bundle, cms_files, inputs, suffix
):
    path, _ = bundle
    encoding = open_bundle(path).encoding
    encoded = encode(concatenate(inputs), encoding)
    x, missing = torch.from_numpy(encoded.dense()), torch.from_numpy(encoded.missing())
    torch.manual_seed(0)
    network = autoencoder(encoding.layout.num_columns, hidden=16)
    optimiser = torch.optim.Adam(network.parameters(), lr=0.01)
    losses = []
    for _ in range(40):
        loss = ((network(x) - x)[~missing] ** 2).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 5
    folder = with_network(path, tmp_path / "bundle", network)
    output = tmp_path / f"decoded{suffix}"
    done = predict(client, folder, cms_files, output, decode=True)
    assert done.num_scored == 16_052
    with torch.no_grad():
        rows = network(x).numpy()
    wanted = decode(rows, missing.numpy(), encoding, multiplicities=encoded.multiplicities())
    found = rows_of(output)
    for branch in encoding.branches:
        assert ak.type(found[branch.name]) == ak.type(wanted[branch.name])
        spread = np.ptp(ak.to_numpy(ak.flatten(wanted[branch.name], axis=None)))
        whole = np.dtype(branch.dtype).kind != "f"  # a number next to 0.5 may round either way
        difference = ak.flatten(abs(found[branch.name] - wanted[branch.name]), axis=None)
        assert ak.max(difference) <= (1 if whole else 1e-5 * spread)
        assert ak.sum(difference > 1e-5 * spread) <= 1


def test_an_autoencoder_that_learned_everything_gives_the_events_of_the_file(
    tmp_path, client, small
):
    path, files = small
    columns = open_bundle(path).encoding.layout.num_columns
    folder = with_network(path, tmp_path / "bundle", autoencoder(columns))
    output = tmp_path / "decoded.root"
    done = predict(
        client, folder, files, output, decode=True, suffix="_decoded", patterns=["x", "*Jet*"]
    )
    assert done.num_not_finite == 0
    with uproot.open(output) as file:
        tree = file["events"]
        assert tree["x_decoded"].title == "x_decoded [GeV]"
        assert tree["Jet_pt_decoded"].count_branch.name == "nJet_decoded"
        found = tree.arrays()
    np.testing.assert_array_equal(np.isnan(found["x_decoded"]), np.isnan(found["x"]))
    np.testing.assert_allclose(found["x_decoded"], found["x"], rtol=0, atol=1e-6)
    assert ak.all(ak.num(found["Jet_pt_decoded"]) == found["nJet"])
    largest = ak.max(found["Jet_pt"])
    assert ak.max(abs(found["Jet_pt_decoded"] - found["Jet_pt"])) < 1e-6 * largest
    assert ak.all(found["is_finite"])


class Cliff(torch.nn.Module):
    """Not finite where the first column is beyond one half."""

    def forward(self, x):
        return x[:, 0] / torch.where(x[:, 0] > 0.5, 0.0, 1.0)


def test_scores_that_are_not_finite_are_written_as_nan_and_counted(tmp_path, client, small):
    path, files = small
    folder = with_network(path, tmp_path / "bundle", Cliff())
    done = predict(client, folder, files, tmp_path / "out.root")
    scores = rows_of(tmp_path / "out.root")["score"]
    assert len(scores) == 3_000
    assert 0 < done.num_not_finite == np.count_nonzero(np.isnan(scores)) < 3_000


def test_few_tasks_are_ahead_of_the_one_that_is_taken(client):
    pulled = []

    def tasks():
        for number in range(50):
            pulled.append(number)
            yield (number,)

    results = in_order(ClusterHandle(client), abs, tasks(), "numbers")
    room = LEAST_AHEAD  # more than two threads have to do
    for number in range(10):
        assert next(results) == number
        assert len(pulled) <= number + room + 1
    results.close()
    assert len(pulled) <= 10 + room


@pytest.fixture
def broken(tmp_path, small):
    """The three files, of which the first is cut and the second damaged inside its baskets."""
    _, files = small
    made = [shutil.copy(file, tmp_path / file.name) for file in files]
    made[0].write_bytes(made[0].read_bytes()[:300])
    with uproot.open(made[1]) as file:
        branch = file["events"]["x"]
        seek, size = branch.member("fBasketSeek")[0], branch.member("fBasketBytes")[0]
    content = bytearray(made[1].read_bytes())
    content[seek + size // 2 : seek + size] = bytes(size - size // 2)
    made[1].write_bytes(content)
    return made


def test_files_that_cannot_be_read_are_skipped_and_reported(tmp_path, client, small, broken):
    path, _ = small
    output = tmp_path / "out.root"
    with pytest.raises(MLaaSError, match=r"a\.root cannot be read"):
        predict(client, path, broken, output)
    with pytest.raises(MLaaSError, match=r"b\.root cannot be read"):
        predict(client, path, broken[1:], output)
    assert not output.exists()
    done = predict(client, path, broken, output, skip=True)
    assert [(lost.file, lost.entry_stop) for lost in done.skipped] == [
        (str(broken[0]), None),
        (str(broken[1]), 1_000),
    ]
    assert done.num_scored == done.num_skipped == 1_000
    assert set(rows_of(output)["source_file"]) == {2}
    with pytest.raises(MLaaSError, match="none of 1000 events can be read"):
        predict(client, path, broken[:2], output, skip=True, overwrite=True)
    with pytest.raises(MLaaSError, match=r"none of 1 .*, the first: .*a.root cannot"):
        predict(client, path, broken[:1], output, skip=True, overwrite=True)


def test_a_later_file_without_an_input_is_named(tmp_path, client, small):
    path, files = small
    other = tmp_path / "other.root"
    branches = tuple(branch for branch in IDENTIFIED if branch.name != "x")
    with write_events(other, branches, tree="events") as out:
        events = identified(10)
        contents = {b.name: events.contents[b.name] for b in branches}
        out.append(Events(10, branches, contents, events.offsets))
    with pytest.raises(MLaaSError, match=r"'x' is missing in tree 'events' of .*other\.root"):
        predict(client, path, [*files, other], tmp_path / "out.root", skip=True)
    assert [entry.name for entry in tmp_path.iterdir()] == ["other.root"]


def test_what_is_wrong_is_told_before_a_cluster_is_started(tmp_path, small, cms_files, capsys):
    path, files = small
    output = tmp_path / "out.root"
    taken = tmp_path / "taken.root"
    taken.write_text("years of work")
    altered = tmp_path / "altered"
    shutil.copytree(path, altered)
    (altered / "model.pt").write_bytes(b"other")

    def error(*arguments, bundle=path, to=output):
        assert main([str(bundle), *map(str, arguments), "--output", str(to)]) == 2
        return capsys.readouterr().err

    assert "model.pt was altered" in error(files[0], bundle=altered)
    assert "no such bundle" in error(files[0], bundle=tmp_path / "none")
    assert "did you mean 'a.root'" in error(files[0].parent / "aa.root")
    assert "matches no file" in error(files[0].parent / "z*.root")
    assert "tree 'Events' is not in" in error(files[0], "--tree", "Events")
    assert "'x' is missing in tree 'events' of" in error(cms_files[0])
    assert "of model 'model'" in error(cms_files[0])
    assert "did you mean 'Jet_pt'" in error(files[0], "--branches", "Jet_Pt")
    assert "exists; it is kept without --overwrite" in error(files[0], to=taken)
    assert "suffix '.h5' tells no format" in error(files[0], to=tmp_path / "out.h5")
    assert "no folder" in error(files[0], to=tmp_path / "none" / "out.root")
    assert "is among the files" in error(files[0], "--overwrite", to=files[0])
    assert "cluster.address: expected 'local'" in error(files[0], "--cluster", "somewhere")
    assert "is for batch systems" in error(files[0], "--site", "s", "--cluster", "tcp://a:1")
    assert "did you mean 'memory_limit'" in error(files[0], "--set", "cluster.memory_limits=1")
    assert "give --decode too" in error(files[0], "--suffix", "_d")
    assert "did you mean 'delimiter'" in error(files[0], "--set", "reading.delimeter=;")
    assert "only the keys of reading" in error(files[0], "--set", "training.epochs=1")
    assert "more than 0, found -1" in error(files[0], "--set", "reading.timeout=-1")
    assert "needs reading.redirector" in error("lfn:/store/a.root")
    assert taken.read_text() == "years of work"
    assert not output.exists()


def test_a_model_of_events_that_a_function_made_warns(tmp_path, small, caplog):
    path, files = small
    bundle = open_bundle(path)
    data = {"tree": "events", "function": "cuts.py:apply"}
    bundle = replace(bundle, manifest={**bundle.manifest, "data": data})
    with caplog.at_level(logging.WARNING):  # a local cluster silences pytest's handler
        check_request(bundle, [str(files[0])], tmp_path / "out.root")
    assert "learned from what the function cuts.py:apply made of the files" in caplog.text


def test_names_that_clash_and_a_model_of_other_rows_are_errors(tmp_path, client, small):
    path, files = small
    output = tmp_path / "out.root"
    with pytest.raises(MLaaSError, match="gives 1 numbers for an event, not a row of its 4"):
        predict(client, path, files, output, decode=True)
    columns = open_bundle(path).encoding.layout.num_columns
    folder = with_network(path, tmp_path / "bundle", autoencoder(columns))
    with pytest.raises(MLaaSError, match="'x' is copied from the files and made by the model too"):
        predict(client, folder, files, output, decode=True, patterns=["x"])


def run(*arguments, **options):
    command = [sys.executable, "-m", "mlaas4hep_dask.predict", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)


def test_the_command_scores_files_and_reports_what_it_did(tmp_path, bundle, cms_files, expected):
    path, _ = bundle
    listed = tmp_path / "files.txt"
    listed.write_text("\n".join(map(str, cms_files)))
    options = ("--workers", "2", "--set", "cluster.memory_limit=2 GiB", "--performance-report")
    done = run(path, "@files.txt", "--output", "scores.parquet", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    report = (tmp_path / "scores.parquet.dask-report.html").read_text()
    assert "Dask Performance Report" in report
    assert re.search(r"memory: *4.00 GiB", report, re.IGNORECASE)  # of two workers
    assert re.search(r"predict: 16,052 events in [\d.]+ s \([\d,]+ events/s\)", done.stdout)
    assert re.search(r"events scored +│ 16,052", done.stdout)
    assert "scores: scores.parquet" in done.stdout
    found = rows_of(tmp_path / "scores.parquet")["score"]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_the_command_says_that_its_output_is_an_rntuple(tmp_path, small):
    path, files = small
    options = ("--output", "scores.root", "--root-format", "rntuple", "--workers", "1")
    done = run(path, files[0], *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "scores: scores.root (RNTuple)" in done.stdout
    with uproot.open(tmp_path / "scores.root") as file:
        assert file.classnames(cycle=False)["events"] == "ROOT::RNTuple"
        assert file["events"].num_entries == 1_000
    refused = run(path, files[0], *options[2:], "--output", "scores.parquet", cwd=tmp_path)
    assert refused.returncode == 2
    assert "rntuple is a format of .root files, not of .parquet" in refused.stderr


class Slow(torch.nn.Module):
    def __init__(self, steps):
        super().__init__()
        self.steps: int = steps

    def forward(self, x):
        rows = torch.ones(1_600, 800)  # products of matrices take ten times as long with some BLAS
        for _ in range(self.steps if x.shape[0] > 100 else 1):  # not the model's first trial
            rows = torch.sin(rows)
        return torch.sigmoid(x.sum(dim=1) + rows[0, 0])


@pytest.mark.timeout(240)
def test_a_worker_that_dies_costs_time_but_no_event(tmp_path, client, small):
    path, files = small
    folder = with_network(path, tmp_path / "bundle", Slow(200))
    client.wait_for_workers(2)
    pids = client.run(os.getpid)

    def kill():
        while not (busy := [worker for worker, tasks in client.processing().items() if tasks]):
            time.sleep(0.05)  # polls for the first task
        os.kill(pids[busy[0]], signal.SIGKILL)

    with ThreadPoolExecutor(1) as thread:
        killed = thread.submit(kill)
        done = predict(client, folder, files, tmp_path / "out.root")
        killed.result()
    assert done.num_scored == 3_000
    assert rows_of(tmp_path / "out.root")["source_entry"].to_list() == [*range(1_000)] * 3
    client.wait_for_workers(2)


@pytest.mark.cluster
@pytest.mark.timeout(240)
def test_all_workers_may_end_at_once_while_files_are_scored(tmp_path, small):
    path, files = small
    folder = with_network(path, tmp_path / "bundle", Slow(200))
    files = [shutil.copy(file, tmp_path / f"{n}-{file.name}") for n in range(4) for file in files]
    with connect(Cluster(workers=2), ranks=1) as own, ThreadPoolExecutor(1) as thread:
        runs = Runs(own.cluster.scheduler)
        own.cluster.scheduler.add_plugin(runs)
        scoring = thread.submit(predict, own, folder, files, tmp_path / "out.root")
        await_that(lambda: len(runs.of("score_partition")) >= 5, scoring)
        kill_all(own)
        done = scoring.result()
        num_runs = sum(runs.of("score_partition").values())
    assert done.num_scored == 12_000
    assert rows_of(tmp_path / "out.root")["source_entry"].to_list() == [*range(1_000)] * 12
    assert 12 <= num_runs <= 12 + 2 * 2  # what two threads were at, and had done within moments


@pytest.mark.timeout(240)
def test_scoring_ends_in_words_when_no_worker_comes_back(tmp_path, small, caplog):
    path, files = small
    folder = with_network(path, tmp_path / "bundle", Slow(200))
    files = [shutil.copy(file, tmp_path / f"{n}-{file.name}") for n in range(4) for file in files]
    soon = Patience(first_word=0.5, no_worker=2.0)
    with (
        LocalCluster(1, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
        caplog.at_level(logging.WARNING, "mlaas4hep_dask.waiting"),
        ThreadPoolExecutor(1) as thread,
    ):
        runs = Runs(cluster.scheduler)
        cluster.scheduler.add_plugin(runs)
        handle = ClusterHandle(client, soon)
        scoring = thread.submit(predict, handle, folder, files, tmp_path / "out.root")
        await_that(lambda: len(runs.of("score_partition")) >= 2, scoring)
        cluster.scale(0)
        with pytest.raises(ClusterError, match=r"waiting for 1 worker \(none is here\), for 2 s"):
            scoring.result(timeout=120)
    assert "waiting for 1 worker (none is here), for 1 s now" in caplog.text
    assert not (tmp_path / "out.root").exists()


def test_ctrl_c_ends_the_command_without_tracebacks_or_files(tmp_path, small):
    path, files = small
    folder = with_network(path, tmp_path / "bundle", Slow(50_000))
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "mlaas4hep_dask.predict", str(folder), *map(str, files)),
            *("--output", "out.root", "--workers", "2"),
        ],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        process_group=0,
    )
    with process.stdout as lines:
        before = list(takewhile(lambda line: not line.startswith("plan:"), lines))
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        rest = lines.read()
    assert process.wait(timeout=60) == 130, (before, rest)
    assert "Traceback" not in rest
    assert "interrupted; nothing was written" in rest
    assert [entry.name for entry in tmp_path.iterdir()] == ["bundle"]
