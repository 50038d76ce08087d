import hashlib
import io
import json
import logging
import shutil
import warnings

import awkward as ak
import numpy as np
import pytest
import torch
import uproot

from mlaas4hep_dask.bundle import open_bundle
from mlaas4hep_dask.bundle.golden import GOLDEN, TOLERANCE, Golden
from mlaas4hep_dask.config import Config
from mlaas4hep_dask.dataset import Dataset
from mlaas4hep_dask.dataset.examples import num_examples
from mlaas4hep_dask.encode import Encoding
from mlaas4hep_dask.errors import BundleError, ModelError
from mlaas4hep_dask.events import Events
from mlaas4hep_dask.gang import Gang
from mlaas4hep_dask.predict.cli import main as predict
from mlaas4hep_dask.run import fit
from mlaas4hep_dask.score.example import example_of
from mlaas4hep_dask.score.opening import open_scorer
from mlaas4hep_dask.score.parts import Records
from mlaas4hep_dask.specs.measure import measure
from mlaas4hep_dask.waiting import ClusterHandle

NETWORKS = """
import torch

class Branched(torch.nn.Module):
    def __init__(self, num_columns):
        super().__init__()
        self.linear = torch.nn.Linear(num_columns, 1)

    def forward(self, x):
        h = self.linear(x).mul(**{"other": 1.0})  # TorchScript knows no such call
        if x.mean() > 0.2:
            h = h * 2
        return h

def branched(num_columns):
    return Branched(num_columns)

class Batch(Branched):
    def forward(self, x):
        return self.linear(x - x.mean(0))

def batch(num_columns):
    return Batch(num_columns)

class Emptied(torch.nn.Module):
    def __init__(self, num_columns):
        super().__init__()
        self.linear = torch.nn.Linear(num_columns, num_columns)

    def forward(self, x):
        return self.linear(x.mul_(0))

def emptied(num_columns):
    return Emptied(num_columns)

def probability(num_columns):
    return torch.nn.Sequential(torch.nn.Linear(num_columns, 1), torch.nn.Sigmoid())

class Late(torch.nn.Module):
    def __init__(self, num_columns):
        super().__init__()
        self.linear = torch.nn.Linear(num_columns, 1)
        self.register_buffer("mean", torch.zeros(num_columns))
        self.register_buffer("num_calls", torch.zeros((), dtype=torch.int64))

    def forward(self, x):
        if self.training:
            if self.num_calls == 0:
                self.mean.copy_(x.mean(0))
            self.num_calls += 1
        return self.linear(x - self.mean)

def late(num_columns):
    return Late(num_columns)

class Fails(Late):
    def forward(self, x):
        if self.training and self.num_calls > 10:
            return self.linear(x[:, 1:])
        return super().forward(x)

def fails(num_columns):
    return Fails(num_columns)
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Two samples with missing values, empty collections and an extreme."""
    folder = tmp_path_factory.mktemp("files")
    for label in (0, 1):
        rng = np.random.default_rng(label)
        met = rng.exponential(30 + 20 * label, 1_500).astype(np.float32)
        met[3::50] = np.nan
        met[7] = 9_000.0
        counts = rng.poisson(1.5, 1_500)
        pt = rng.exponential(40 + 10 * label, counts.sum()).astype(np.float32)
        number = rng.integers(0, 2**40, 1_500)
        jets = ak.unflatten(pt, counts)
        with uproot.recreate(folder / f"{label}.root") as file:
            file["events"] = {"met": met, "number": number, "Jet": ak.zip({"pt": jets})}
    (folder / "networks.py").write_text(NETWORKS)
    return folder


def keys_of(files, **changes):
    return {
        "name": "golden",
        "tree": "events",
        "samples": [{"name": f"s{n}", "label": n, "files": f"{files}/{n}.root"} for n in (0, 1)],
        "branches": {"identifiers": []},
        "encode": {"normalisation": "minmax", "width": 3},
        "partition": {"max_events": 400},
        "training": {"epochs": 1, "batch_size": 100},
        **changes,
    }


def run(files, client, output, **changes):
    return fit(Dataset(Config.from_mapping(keys_of(files, **changes)), client), output=output)


@pytest.fixture(scope="module")
def trained(files, client, tmp_path_factory):
    return run(files, client, tmp_path_factory.mktemp("trained") / "run").bundle


@pytest.fixture
def copied(trained, tmp_path):
    return shutil.copytree(trained.path, tmp_path / "bundle")


def change(bundle, member, edit):
    """Edit a member and bring its checksum in the manifest up to date, as somebody might."""
    path = bundle / member
    path.write_bytes(edit(path.read_bytes()))
    manifest = json.loads((bundle / "manifest.json").read_text())
    content = path.read_bytes()
    manifest["files"][member] = {
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
    }
    (bundle / "manifest.json").write_text(json.dumps(manifest))


def change_manifest(bundle, edit):
    manifest = json.loads((bundle / "manifest.json").read_text())
    edit(manifest)
    (bundle / "manifest.json").write_text(json.dumps(manifest))


def test_a_bundle_holds_real_raw_events_with_the_scores_of_the_network(trained, files):
    golden = trained.golden()
    assert "golden.json" in trained.manifest["files"]
    assert 150 <= len(golden.events) <= 250
    assert set(golden.events[0]) == {"met", "number", "Jet_pt"}
    assert any(event["met"] is None for event in golden.events)
    assert any(event["Jet_pt"] == [] for event in golden.events)
    assert 9_000.0 in [event["met"] for event in golden.events]
    real = set()
    for label in (0, 1):
        with uproot.open({files / f"{label}.root": "events"}) as tree:
            real |= set(tree["number"].array(library="np").tolist())
    assert {event["number"] for event in golden.events} <= real
    (scored,) = open_scorer(trained.path).score([Records(golden.events)])
    assert np.abs(scored.values - golden.scores).max() < 1e-6
    assert np.std(golden.scores) > 1e-3


def test_a_network_is_tried_on_a_thousand_events_or_as_many_as_can_travel(files, client):
    examples = Dataset(Config.from_mapping(keys_of(files)), client).examples()
    assert len(examples) == 1_000
    assert np.bincount(examples.y.astype(int)).tolist() == [500, 500]
    columns = Events.from_awkward(ak.Array({f"x{n}": np.arange(3.0) for n in range(5_000)}))
    wide = Encoding.from_specs(measure(columns, sample="s"), normalisation="minmax")
    assert num_examples(wide, 2)[0] == 8 * 1024**2 // (5 * 5_000) // 2 == 167
    assert num_examples(wide, 100)[0] == 8  # each sample has some


def test_golden_events_survive_the_way_to_the_file_and_back(trained, tmp_path):
    golden = trained.golden()
    (tmp_path / GOLDEN).write_bytes(golden.to_json())
    back = Golden.read(tmp_path)
    assert back.events == golden.events
    np.testing.assert_array_equal(back.scores, golden.scores)
    assert (back.output, back.tolerance) == (golden.output, TOLERANCE)
    assert (tmp_path / GOLDEN).read_bytes() == (trained.path / GOLDEN).read_bytes()


def other_range(content):
    return content.replace(b'"max": 9000.0', b'"max": 7000.0')


def other_scores(content):
    document = json.loads(content)
    document["scores"][5] += 0.01
    return json.dumps(document).encode()


def other_weights(content):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch.jit is our contract
        script = torch.jit.load(io.BytesIO(content))
        with torch.no_grad():
            next(script.parameters()).mul_(1.5)
        buffer = io.BytesIO()
        torch.jit.save(script, buffer)
    return buffer.getvalue()


def other_tolerance(content):
    return content.replace(b'"tolerance": 0.0001', b'"tolerance": 10.0')


def other_event(content):
    document = json.loads(content)
    del document["events"][0]["met"]
    return json.dumps(document).encode()


EDITED = {
    "specs": ("specs.json", other_range, "contradicts itself: scale of met is .* in model.pt"),
    "scores": (GOLDEN, other_scores, r"other scores .* by up to 0\.01 on 1 of \d+ events"),
    "weights": ("model.pt", other_weights, r"other scores .* on \d+ of \d+ events"),
    "the tolerance": (GOLDEN, other_tolerance, "its tolerance is 10.0, expected at most 0.001"),
    "an event": (GOLDEN, other_event, "does not take a golden event"),
    "no JSON": (GOLDEN, lambda _: b"{", "holds no golden events"),
    "another format": (GOLDEN, lambda _: b'{"format": "x", "version": 1}', "holds no golden"),
    "a list": (GOLDEN, lambda _: b"[1, 2]", "holds no golden events"),
    "depth": (GOLDEN, lambda _: b"[" * 100_000, "holds no golden events"),
}


@pytest.mark.parametrize("edited", EDITED)
def test_an_edited_bundle_with_right_checksums_is_refused(edited, copied, files, capsys):
    member, edit, message = EDITED[edited]
    before = (copied / member).read_bytes()
    change(copied, member, edit)
    assert (copied / member).read_bytes() != before
    with pytest.raises(BundleError, match=message):
        open_scorer(copied)
    output = copied.parent / "scores.root"
    assert predict([str(copied), str(files / "0.root"), "--output", str(output)]) == 2
    assert "error: " in capsys.readouterr().err
    assert not output.exists()


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda m: m["encode"].update(out_of_range="clip"), "low of met is -inf in model.pt"),
        (lambda m: m["encode"].update(normalisation="standard"), "shift of met is"),
        (lambda m: m["output"]["classes"].reverse(), "golden events have scores of"),
        (
            lambda m: m["output"].update(kind="regression", targets=["a"], shifts=[0], scales=[1]),
            "contradicts itself",
        ),
    ],
)
def test_a_manifest_that_contradicts_the_model_is_refused(edit, message, copied):
    change_manifest(copied, edit)
    with pytest.raises(BundleError, match=message):
        open_scorer(copied)


def test_a_bundle_of_an_earlier_version_opens_and_is_noted(copied, caplog):
    (copied / GOLDEN).unlink()
    change_manifest(copied, lambda manifest: manifest["files"].pop(GOLDEN))
    with caplog.at_level(logging.WARNING):
        model = open_scorer(copied)
    assert "has no golden events" in caplog.text
    assert np.isfinite(model.score([Records([example_of(model.bundle)])])[0].values).all()


class Wrong(torch.nn.Module):
    """A module with the methods of a bundle's model that gives some other numbers."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind: str = kind

    def forward(self, raw: torch.Tensor) -> torch.Tensor:
        return raw

    @torch.jit.export
    def score_encoded(self, x: torch.Tensor, missing: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        scores = torch.sigmoid(x.sum(dim=1))
        if self.kind == "columns":
            return scores.reshape(-1, 1).repeat(1, 7)
        if self.kind == "batch":
            return scores.mean()
        if self.kind == "company":
            return torch.sigmoid((x - x.mean(dim=0)).sum(dim=1))
        if self.kind == "random":
            return torch.rand(x.shape[0])
        if self.kind == "range":
            return scores * 3
        return scores


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("columns", r"gives \(3, 7\) for 3 events, expected one number per event"),
        ("batch", r"gives an array of shape \(\) for 3 events"),
        ("company", "another score alone"),
        ("random", "other scores when it is asked again"),
        ("range", "expected probabilities"),
    ],
)
@pytest.mark.parametrize("is_golden", [True, False])
def test_a_model_that_breaks_its_contract_is_not_loaded(kind, message, is_golden, copied):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch.jit is our contract
        buffer = io.BytesIO()
        torch.jit.save(torch.jit.script(Wrong(kind)), buffer)
    change(copied, "model.pt", lambda _: buffer.getvalue())
    if not is_golden:
        (copied / GOLDEN).unlink()
        change_manifest(copied, lambda manifest: manifest["files"].pop(GOLDEN))
    with pytest.raises(BundleError, match=message):
        open_scorer(copied)


def model_of(files, name):
    return {"model": {"callable": f"{files}/networks.py:{name}"}}


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("branched", {}, r"another score alone|decides by the values of events"),
        (
            "batch",
            {},
            r"another score alone than among 1,000, by up to .* on [\d,]+ of 1,000 events",
        ),
        (
            "emptied",
            {
                "target": {"kind": "reconstruction"},
                "samples": [{"name": "s", "files": "{files}/0.root"}],
            },
            "changes its input in place",
        ),
    ],
)
def test_a_network_that_cannot_be_exported_as_it_is_stops_the_run_before_training(
    name, changes, message, files, client, tmp_path
):
    changes = json.loads(json.dumps(changes).replace("{files}", str(files)))
    with pytest.raises(ModelError, match=message):
        run(files, client, tmp_path / "run", **model_of(files, name), **changes)
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_sigmoid_is_warned_of_by_check_and_by_the_run(files, client, tmp_path, capsys):
    from mlaas4hep_dask.run.cli import main

    keys = keys_of(files, **model_of(files, "probability"))
    path = tmp_path / "dataset.yaml"
    path.write_text(Config.from_mapping(keys).to_yaml())
    assert main([str(path), "--check"]) == 0
    assert "WARNING: model " in (printed := capsys.readouterr().out)
    assert "is its last layer a Sigmoid" in printed
    result = run(files, client, tmp_path / "run", **model_of(files, "probability"))
    notes = [note for note in result.summary["counts"]["notes"] if "Sigmoid" in note]
    assert len(notes) == 1


def test_the_network_that_is_trained_sees_its_first_events_in_training(files, client, tmp_path):
    result = run(files, client, tmp_path / "run", **model_of(files, "late"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch.jit is our contract
        script = torch.jit.load(result.bundle.model_path)
    buffers = dict(script.named_buffers())
    calls = int(next(value for name, value in buffers.items() if name.endswith("num_calls")))
    train = sum(sample["train"] for sample in result.summary["samples"])
    assert calls == -(-train // 100)
    mean = next(value for name, value in buffers.items() if name.endswith("network.mean"))
    assert float(mean.abs().sum()) > 0


@pytest.mark.parametrize("ranks", [1, 2])
def test_an_error_of_torch_in_a_step_is_the_model_s_at_once(ranks, files, client, tmp_path):
    training = {"epochs": 1, "batch_size": 20, "ranks": ranks}
    with pytest.raises(ModelError, match=r"in line \d+ of networks\.py \(RuntimeError: mat1"):
        run(files, client, tmp_path / "run", training=training, **model_of(files, "fails"))


def test_a_death_explains_no_error_of_a_model(client):
    members = Gang(ClusterHandle.of(client), 1, "training.ranks is 1", grace=1e6)
    members.meet()
    assert not members.has_lost(ModelError("fails"))  # a wait would never end


def test_a_bundle_of_every_kind_is_loaded_with_its_golden_events(files, client, tmp_path):
    made = {
        "classes": {"target": {"branch": "number % 3", "classes": ["a", "b", "c"]}},
        "regression": {"target": {"kind": "regression", "branch": "sum(Jet_pt)"}},
        "reconstruction": {"target": {"kind": "reconstruction"}},
    }
    samples = [{"name": f"s{n}", "files": f"{files}/{n}.root"} for n in (0, 1)]
    for kind, changes in made.items():
        found = run(files, client, tmp_path / kind, samples=samples, **changes)
        bundle = open_bundle(found.bundle.path)
        golden = bundle.golden()
        (scored,) = open_scorer(bundle.path).score([Records(golden.events)])
        assert scored.values.shape == golden.scores.shape
        np.testing.assert_allclose(scored.values, golden.scores, rtol=1e-4, atol=1e-4)
