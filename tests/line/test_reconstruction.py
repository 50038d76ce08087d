import re

import awkward as ak
import numpy as np
import pytest
import torch
import uproot
from steps import predict, rows_of, served, some_events
from test_targets import write

from mlaas4hep_dask.config import Config
from mlaas4hep_dask.dataset import Dataset
from mlaas4hep_dask.encode import decode, encode
from mlaas4hep_dask.encode.split import split_of
from mlaas4hep_dask.errors import ConfigError, ModelError
from mlaas4hep_dask.objective import Reconstruction
from mlaas4hep_dask.objective.arithmetic.reconstruction import Rows
from mlaas4hep_dask.run import fit
from mlaas4hep_dask.run.cli import main
from mlaas4hep_dask.score.script import Script
from mlaas4hep_dask.train.network import autoencoder

INPUTS = ["MET_px", "MET_py", "NJet", "Jet_Px", "Jet_Py", "Jet_btag", "Muon_Pz"]
OWN = """
import torch

class Masked(torch.nn.Module):
    def __init__(self, columns):
        super().__init__()
        self.first = torch.nn.Linear(2 * columns, 8)
        self.last = torch.nn.Linear(8, columns)

    def forward(self, x, missing):
        return self.last(torch.relu(self.first(torch.cat([x, missing.float()], dim=1))))

def masked(num_columns):
    return Masked(num_columns)

def narrow(num_columns):
    return torch.nn.Linear(num_columns, num_columns - 1)
"""


def keys_of(cms_files, **changes):
    return {
        "name": "anomaly",
        "tree": "events",
        "samples": [
            {"name": "single_top", "files": str(cms_files[0])},
            {"name": "diboson", "files": [str(file) for file in cms_files[1:]]},
        ],
        "target": {"kind": "reconstruction"},
        "weight": "EventWeight",
        "branches": {"include": INPUTS},
        "encode": {"width": 3, "normalisation": "standard"},
        "training": {"epochs": 3, "batch_size": 100},
        "specs": {"cache": None},
        **changes,
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory, client, cms_files):
    """A run with two samples, its data set and its trained network."""
    folder = tmp_path_factory.mktemp("reconstruction") / "run"
    dataset = Dataset(Config.from_mapping(keys_of(cms_files)), client)
    result = fit(dataset, output=folder)
    return result, dataset, network_of(result)


def network_of(result, build=autoencoder):
    network = build(result.bundle.encoding.layout.num_columns).eval()
    state = torch.load(next((result.path / "checkpoints").glob("*.pt")), weights_only=True)
    network.load_state_dict(state["network"])
    return network


def given(network, x):
    with torch.no_grad():
        return network(torch.from_numpy(x)).double().numpy()


def errors_of(rows, x, missing):
    """The mean over present values of the squared difference, event by event."""
    squares = np.ma.masked_array((rows - x.astype(np.float64)) ** 2, missing)
    return squares.mean(axis=1).filled(0.0)


def weighted_quantile(values, weights, quantile):
    order = np.argsort(values)
    running = np.cumsum(weights[order])
    return values[order][np.searchsorted(running, quantile * running[-1])]


def test_the_metrics_of_a_run_are_those_of_its_network_on_the_test_events(finished):
    result, dataset, network = finished
    x, missing, y, w, ids, stored = (array.compute() for array in dataset.to_dask())
    split = dataset.config.split
    fractions = (split.train, split.validation, split.test)
    chosen = split_of(ids, fractions, seed=dataset.config.seed.split) == 2
    np.testing.assert_array_equal(stored == 2, chosen)
    x, missing, y, w = (array[chosen] for array in (x, missing, y, w.astype(np.float64)))
    rows = given(network, x)
    errors = errors_of(rows, x, missing)
    test = result.summary["test"]
    assert test["num_events"] == len(x)
    assert test["loss"] == pytest.approx(np.average(errors, weights=w), rel=1e-5)
    for number, name in enumerate(("single_top", "diboson")):
        own = y == number
        found = test["errors"][name]
        assert found["mean"] == pytest.approx(np.average(errors[own], weights=w[own]), rel=1e-5)
        for key, quantile in (("median", 0.5), ("quantile_95", 0.95)):
            expected = weighted_quantile(errors[own], w[own], quantile)
            assert found[key] == pytest.approx(expected, rel=0.02)
        counts = test["error_distribution"]["counts"][name]
        assert sum(counts) == pytest.approx(w[own].sum(), rel=1e-6)
    columns = dataset.encoding().columns()
    shares = []
    for name in INPUTS:
        own = [re.sub(r"\[\d+\]", "", column) == name for column in columns]
        present = ~missing[:, own]
        weights = np.broadcast_to(w[:, None], present.shape)[present]
        truth, r = x[:, own][present].astype(float), (rows - x)[:, own][present]
        found = test["branches"][name]
        assert found["rmse"] == pytest.approx(np.average(r**2, weights=weights) ** 0.5, rel=1e-5)
        assert found["bias"] == pytest.approx(np.average(r, weights=weights), rel=1e-4, abs=1e-6)
        spread = np.average((truth - np.average(truth, weights=weights)) ** 2, weights=weights)
        shares.append(1 - np.average(r**2, weights=weights) / spread)
        assert found["r2"] == pytest.approx(shares[-1], rel=1e-5, abs=1e-6)
    assert test["r2"] == pytest.approx(np.mean(shares), rel=1e-5)
    assert test["r2"] > 0.5  # 16 numbers of 18
    first, last = (result.summary["epochs"][n]["validation"]["loss"] for n in (0, -1))
    assert last < first


def test_report_card_and_manifest_tell_what_was_reconstructed(finished):
    result, _, _ = finished
    assert result.summary["outputs"]["kind"] == "reconstruction"
    assert [sample["label"] for sample in result.summary["samples"]] == [None, None]
    report = result.report.read_text()
    assert "Reconstruction of the test set" in report
    assert "Reconstruction error of the events of each sample" in report
    assert "Residuals of every branch" in report
    for name in INPUTS:
        assert f"Residuals of {name}" in report
    for name in ("single_top", "diboson"):
        assert f"error of {name}" in report
    for split in ("train", "validation", "test"):
        assert result.bundle.manifest["metrics"][split]["loss"] > 0
    card = (result.bundle.path / "model_card.md").read_text()
    assert "the error with which an event is reconstructed" in card
    output = result.bundle.manifest["output"]
    assert output["name"] == "reconstruction_error"
    assert output["columns"] == result.bundle.encoding.columns()


def test_the_server_answers_with_the_error_of_each_event(finished, cms_files):
    result, _, network = finished
    events = some_events(result.bundle, cms_files[0])
    encoded = encode(events, result.bundle.encoding)
    x, missing = encoded.dense(), encoded.missing()
    answer = served(result.bundle.path, events)
    expected = errors_of(given(network, x), x, missing)
    np.testing.assert_allclose(answer["scores"], expected, rtol=1e-4, atol=1e-6)
    assert answer.keys() == {"model", "scores", "counts", "ignored"}


@pytest.mark.parametrize("suffix", [".root", ".parquet"])
def test_a_prediction_holds_the_errors_and_if_asked_for_the_reconstructed_events(
    tmp_path, client, finished, cms_files, suffix
):
    result, _, network = finished
    bundle, encoding = result.bundle, result.bundle.encoding
    output = tmp_path / f"scores{suffix}"
    plain = predict(client, bundle.path, cms_files, output, patterns=["EventWeight"])
    assert plain.branches == ("source_file", "source_entry", "EventWeight", "score")
    scores = rows_of(output)["score"]
    done = predict(
        *(client, bundle.path, cms_files, tmp_path / f"decoded{suffix}"),
        decode=True,
        suffix="_ae",
        patterns=INPUTS,
    )
    assert done.num_scored == plain.num_scored == 16_052
    found = rows_of(tmp_path / f"decoded{suffix}")
    raw = uproot.concatenate([f"{file}:events" for file in cms_files], INPUTS)
    x, missing = dense_by_hand(raw, encoding)
    rows = given(network, x).astype(np.float32)
    expected = errors_of(rows, x, missing)
    for given_scores in (scores, found["score"]):
        np.testing.assert_allclose(given_scores, expected, rtol=1e-3, atol=1e-6)
    wanted = decode(rows, missing, encoding)
    for name in INPUTS:
        own = ak.flatten(found[f"{name}_ae"], axis=None)
        hand = ak.flatten(wanted[name], axis=None)
        spread = np.ptp(ak.to_numpy(hand))
        if name == "NJet":  # a counter of ROOT's would be the number of objects
            own, hand = found["NJet_ae"], wanted["NJet"]
        whole = np.dtype(encoding.branches[encoding.layout.branches.index(name)].dtype).kind != "f"
        difference = abs(ak.to_numpy(own).astype(float) - ak.to_numpy(hand))
        assert difference.max() <= (1 if whole else 1e-4 * spread)
        assert np.mean(difference > 1e-4 * spread) < 1e-3  # a half may round either way
    assert ak.all(ak.num(found["Jet_Px_ae"]) == np.minimum(ak.num(raw["Jet_Px"]), 3))
    assert ak.all(found["is_finite"])


def dense_by_hand(raw, encoding):
    """Rows and missing mask from awkward arrays, without `encode`."""
    columns, scalings = [], dict(zip(encoding.layout.branches, encoding.scalings, strict=True))
    for column in encoding.columns():
        name, _, place = column.partition("[")
        values = raw[name]
        if place:
            padded = ak.fill_none(ak.pad_none(values, 3, clip=True), np.nan)
            values = padded[:, int(place[:-1])]
        scaling = scalings[name]
        columns.append((ak.to_numpy(values).astype(float) - scaling.shift) * scaling.scale)
    x = np.stack(columns, axis=1).astype(np.float32)
    return np.nan_to_num(x), np.isnan(x)


def test_one_sample_and_the_user_s_own_network_will_do(client, cms_files, tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    keys = keys_of(
        cms_files,
        samples=[{"name": "single_top", "files": str(cms_files[0])}],
        model={"callable": f"{tmp_path}/own.py:masked"},
        training={"epochs": 2, "batch_size": 100},
    )
    losses = {}
    for ranks in (1, 2):
        keys["training"]["ranks"] = ranks
        result = fit(Dataset(Config.from_mapping(keys), client), output=tmp_path / f"run{ranks}")
        test = result.summary["test"]
        assert list(test["errors"]) == ["single_top"]
        assert test["errors"]["single_top"]["mean"] == pytest.approx(test["loss"], rel=1e-5)
        losses[ranks] = test["loss"]
    assert losses[1] == pytest.approx(losses[2], rel=0.1)
    events = some_events(result.bundle, cms_files[0])
    encoded = encode(events, result.bundle.encoding)
    x, missing = encoded.dense(), encoded.missing()
    exported = Script(result.bundle.model_path)
    expected = errors_of(exported.rows_of(x, missing), x, missing)
    np.testing.assert_allclose(exported.scores_of(x, missing), expected, rtol=1e-4, atol=1e-6)


def test_a_network_of_narrower_rows_is_refused(client, cms_files, tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    keys = keys_of(cms_files, model={"callable": f"{tmp_path}/own.py:narrow"})
    message = r"own\.py:narrow' gives \(3, 14\) for 3 events, expected \(3, 15\).*a row is as wide"
    with pytest.raises(ModelError, match=message):
        fit(Dataset(Config.from_mapping(keys), client), output=tmp_path / "run")


def test_check_tries_the_network_on_rows(cms_files, tmp_path, capsys):
    (tmp_path / "own.py").write_text(OWN)
    path = tmp_path / "dataset.yaml"
    path.write_text(Config.from_mapping(keys_of(cms_files)).to_yaml())
    assert main([str(path), "--check"]) == 0
    assert "train.network:autoencoder accepts rows" in capsys.readouterr().out
    assert main([str(path), "--check", "--set", "model.callable=own.py:narrow"]) == 2
    assert "a row is as wide as the input" in capsys.readouterr().err


UNFIT = {
    "a label": (
        lambda keys: keys["samples"][1].update(label=0), r"samples\[1\]\.label: not wanted: a rec"),
    "a branch": (
        lambda keys: keys["target"].update(branch="NJet"), r"target\.branch: not wanted: a rec"),
    "classes": (
        lambda keys: keys["target"].update(classes=["a", "b"]), r"target\.classes: not wanted"),
    "a loss": (
        lambda keys: keys["target"].update(loss="huber"), r"training\.loss: expected a"),
    "balance": (
        lambda keys: keys["training"].update(balance="classes"), r"training\.balance: a reconstr"),
    "an image": (
        lambda keys: keys.update(image={"axes": {"Jet_Px": {}, "Jet_Py": {}},
                                        "channels": [{"value": "Jet_btag"}]}),
        r"image: not with target\.kind: reconstruction"),
}  # fmt: skip


@pytest.mark.parametrize("fault", UNFIT)
def test_keys_without_a_meaning_are_refused(cms_files, fault):
    keys = keys_of(cms_files)
    change, message = UNFIT[fault]
    change(keys)
    with pytest.raises(ConfigError, match=message):
        Config.from_mapping(keys)


ROWS = Reconstruction(("MET", "Jet_pt[0]", "Jet_pt[1]"))


def drawn(size=9_000):
    rng = np.random.default_rng(5)
    x = rng.normal(size=(size, 3)).astype(np.float32)
    missing = rng.random((size, 3)) < 0.3
    missing[0] = True  # an event of nothing
    x[missing] = 0
    output = (x + 0.3 * rng.normal(size=x.shape)).astype(np.float32)
    w = np.where(rng.random(size) < 0.1, -0.5, rng.random(size) + 0.5).astype(np.float32)
    sample = rng.integers(0, 2, size).astype(np.float32)
    return output, Rows(x, missing, sample), w


def test_a_loss_is_of_present_values_alone_and_padding_has_no_gradient():
    output, rows, w = drawn(60)
    x, missing, weights = map(torch.from_numpy, (rows.x, rows.missing, w))
    network_gave = torch.from_numpy(output).requires_grad_()
    loss = ROWS.batch_loss()(network_gave, (x, missing), weights)
    loss.backward()
    expected = errors_of(output.astype(float), rows.x, rows.missing) @ w.astype(float)
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-5)
    assert (network_gave.grad.numpy() != 0).tolist() == (~rows.missing).tolist()


def test_tallies_of_parts_add_up():
    output, rows, w = drawn()
    whole, *parts = (ROWS.tally(["a", "b"]) for _ in range(3))
    whole.add(output, rows, w)
    for tally, part in zip(parts, (slice(None, 5_000), slice(5_000, None)), strict=True):
        tally.add(output[part], Rows(*(array[part] for array in rows)), w[part])
    np.testing.assert_allclose(whole.sums, parts[0].sums + parts[1].sums, rtol=1e-9, atol=1e-9)
    found = whole.values()
    assert list(found["branches"]) == ["MET", "Jet_pt"]
    assert found["branches"]["MET"]["rmse"] == pytest.approx(0.3, rel=0.05)
    for name in ("MET", "Jet_pt"):
        histogram = whole.detail()["residuals"][name]
        edges, counts = np.array(histogram["edges"]), np.array(histogram["counts"])
        centres = (edges[1:] + edges[:-1]) / 2
        assert (counts @ centres**2 / counts.sum()) ** 0.5 == pytest.approx(0.3, rel=0.08)
    empty = ROWS.tally(["a", "b"])
    empty.add(output[:0], Rows(*(array[:0] for array in rows)), w[:0])
    assert empty.values()["r2"] is None
    assert empty.values()["errors"]["a"] == {"mean": None, "median": None, "quantile_95": None}
    assert empty.detail()["error_distribution"] == {"edges": [], "counts": {}}


def test_events_of_which_all_is_missing_or_too_large_have_an_error_of_0_or_none(client, tmp_path):
    rng = np.random.default_rng(1)
    columns = {name: rng.normal(size=300).astype(np.float32) for name in ("x", "y")}
    file = write(tmp_path / "a.root", **columns)
    keys = {
        "tree": "t",
        "samples": [{"name": "a", "files": file}],
        "target": {"kind": "reconstruction"},
        "training": {"epochs": 1, "batch_size": 50, "ranks": 1},
        "model": {"kwargs": {"hidden": [], "latent": 1}},
        "specs": {"cache": None},
    }
    result = fit(Dataset(Config.from_mapping(keys), client), output=tmp_path / "run")
    for values in columns.values():
        values[0] = np.nan
    columns["x"][1] = 3e38
    other = write(tmp_path / "b.root", **columns)
    for options in ({}, {"decode": True}):
        output = tmp_path / f"out{len(options)}.root"
        done = predict(client, result.bundle.path, [other], output, **options)
        scores = ak.to_numpy(rows_of(output, "t")["score"])
        assert scores[0] == 0
        assert np.isnan(scores[1])
        assert done.num_not_finite == 1
        assert np.all(scores[2:] > 0)
