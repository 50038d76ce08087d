import json
from textwrap import dedent

import numpy as np
import pytest
import torch
import yaml

from mlaas4hep_dask.config import Config, json_schema
from mlaas4hep_dask.config.load import load
from mlaas4hep_dask.dataset import Dataset
from mlaas4hep_dask.errors import ConfigError, ModelError
from mlaas4hep_dask.objective import (
    BINARY,
    LOSSES,
    Classes,
    Reconstruction,
    Regression,
    loss_names,
)
from mlaas4hep_dask.run.cli import main
from mlaas4hep_dask.run.facts import facts_before
from mlaas4hep_dask.run.method import method_of
from mlaas4hep_dask.run.stages import fit, model_of
from mlaas4hep_dask.train.loss import find_loss

NUMBERS = Regression(("x", "y"), (0.0, 1.0), (1.0, 2.0))
OWN = """
import torch

def focal(outputs, targets):
    '''The focal loss (Lin et al. 2017) with an exponent of 2.'''
    right = torch.where(targets > 0.5, outputs, -outputs)
    return torch.sigmoid(-right) ** 2 * torch.nn.functional.softplus(-right)

def absolute(outputs, targets):
    return (outputs - targets).abs().mean(dim=1)

def plain(outputs, targets):
    return torch.nn.functional.binary_cross_entropy_with_logits(outputs, targets, reduction="none")

def mean(outputs, targets):
    return plain(outputs, targets).mean()

def number(outputs, targets):
    return 1.0

def detached(outputs, targets):
    return plain(outputs.detach(), targets)

def fails(outputs, targets):
    return outputs[:, 7]

def infinite(outputs, targets):
    return plain(outputs, targets) / 0
"""


def found(folder, function, text=OWN):
    (folder / "losses.py").write_text(dedent(text), encoding="utf-8")
    resolve = lambda path: folder / path  # noqa: E731
    return find_loss(f"losses.py:{function}", resolve=resolve, where="dataset.yaml:9")


def keys_of(cms_files, **changes):
    single_top, ww, *_ = map(str, cms_files)
    return {
        "name": "loss",
        "tree": "events",
        "samples": [
            {"name": "top", "label": 1, "files": single_top},
            {"name": "ww", "label": 0, "files": ww},
        ],
        "branches": {"include": ["NJet", "MET_px", "MET_py", "Jet_btag"]},
        "specs": {"cache": None},
        **changes,
    }


def written(folder, keys, text=OWN):
    (folder / "losses.py").write_text(dedent(text), encoding="utf-8")
    (folder / "dataset.yaml").write_text(yaml.safe_dump(keys), encoding="utf-8")
    return folder / "dataset.yaml"


@pytest.mark.parametrize(
    ("objective", "function", "y"),
    [
        (BINARY, "focal", torch.tensor([0.0, 1.0, 1.0])),
        (Regression(("m",), (3.0,), (0.5,)), "absolute", torch.tensor([[1.0], [2.0], [9.0]])),
    ],
    ids=["two classes", "regression"],
)
def test_a_loss_of_ones_own_is_weighted_and_summed_over_events(objective, function, y, tmp_path):
    outputs = torch.randn(3, *objective.output_tail, requires_grad=True)
    w = torch.tensor([1.0, 0.0, -2.0])
    total = found(tmp_path, function).batch_loss(objective)(outputs, y, w)
    source = found(tmp_path, function)
    each = torch.stack([total_of_one(source, objective, outputs, y, i) for i in range(3)])
    torch.testing.assert_close(total, each @ w)
    total.backward()
    assert outputs.grad[1].abs().sum() == 0  # an event of weight 0 teaches nothing


def total_of_one(source, objective, outputs, y, place):
    rows = slice(place, place + 1)
    return source.batch_loss(objective)(outputs[rows], y[rows], torch.ones(1))


def test_a_loss_of_rows_compares_the_values_that_are_present(tmp_path):
    x = torch.tensor([[1.0, 0.0], [2.0, 5.0]])
    missing = torch.tensor([[False, True], [False, False]])
    outputs = torch.tensor([[2.0, 1e9], [2.0, 4.0]])
    loss = found(tmp_path, "absolute").batch_loss(Reconstruction(("a", "b")))
    assert float(loss(outputs, (x, missing), torch.ones(2))) == pytest.approx(0.5 + 0.5)


LINE = OWN.splitlines().index("    return outputs[:, 7]") + 1
FAULTS = {
    "mean": "returned () for 3 events, expected (3,): one loss per event",
    "number": "returned float, expected a tensor of one loss per event",
    "detached": "gives losses without a gradient",
    "fails": f"failed on 3 events in line {LINE} of losses.py (IndexError: ",
}


@pytest.mark.parametrize("function", FAULTS)
def test_what_is_wrong_with_a_loss_is_said_with_its_line(function, tmp_path):
    outputs = torch.randn(3, requires_grad=True)
    with pytest.raises(ModelError) as caught:
        found(tmp_path, function).batch_loss(BINARY)(outputs, torch.ones(3), torch.ones(3))
    assert f"loss 'losses.py:{function}' {FAULTS[function]}" in str(caught.value)


@pytest.mark.timeout(300)
def test_a_run_learns_by_a_loss_of_ones_own(cms_files, client, tmp_path):
    """The same loss as ours gives the same network but for rounding; another gives another."""
    results = {}
    for name in ("losses.py:plain", "cross_entropy", "losses.py:focal"):
        training = {"epochs": 1, "loss": name}
        config = load(written(tmp_path, keys_of(cms_files, training=training)))
        result = fit(Dataset(config, client), output=tmp_path / f"run {name[-5:]}")
        results[name] = result.summary["test"]["loss"]
        assert name in result.summary["config_yaml"]
    assert results["losses.py:plain"] == pytest.approx(results["cross_entropy"], rel=1e-2)
    assert results["losses.py:focal"] < 0.7 * results["cross_entropy"]  # p <= 1 times as much


@pytest.mark.timeout(200)
@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("fails", f"failed on 256 events in line {LINE} of losses.py (IndexError"),
        ("infinite", "a loss that is not finite"),
        ("focale", "losses.py has no 'focale'; did you mean 'focal'?"),
    ],
)
def test_a_check_tries_the_loss_on_real_events(function, message, cms_files, tmp_path, capsys):
    training = {"ranks": 1, "loss": f"losses.py:{function}"}
    path = written(tmp_path, keys_of(cms_files, training=training))
    assert main([str(path), "--check", "--output", str(tmp_path / "run")]) == 2
    assert message in capsys.readouterr().err


def test_a_changed_loss_does_not_take_an_interrupted_run_up(cms_files, client, tmp_path):
    facts = []
    for text in (OWN, OWN + "\n# another\n"):
        training = {"loss": "losses.py:focal"}
        config = load(written(tmp_path, keys_of(cms_files, training=training), text))
        dataset = Dataset(config, client)
        facts.append(facts_before(dataset, model_of(config), method_of(config)))
    before, after = (json.loads(json.dumps(each, default=str)) for each in facts)
    changed = {key for key in before if before[key] != after[key]}
    assert changed == {"loss losses.py:focal"}


def test_a_configuration_with_a_loss_means_the_same_in_another_folder(cms_files, tmp_path):
    training = {"loss": "losses.py:focal"}
    config = load(written(tmp_path, keys_of(cms_files, training=training)))
    text = config.to_yaml(absolute=True)
    again = Config.from_mapping(yaml.safe_load(text), base="/")
    assert again.loss == f"{tmp_path}/losses.py:focal"


@pytest.mark.parametrize(
    ("training", "target", "message"),
    [
        (
            "huber",
            {},
            "expected a loss of a classification, 'cross_entropy' or 'path/to/file.py:callable'",
        ),
        ("hubber", {"kind": "regression", "branch": "x"}, "did you mean 'huber'?"),
        (
            "mse",
            {"kind": "regression", "branch": "x", "loss": "huber"},
            "target.loss",
        ),
    ],
)
def test_a_loss_that_does_not_fit_the_target_is_refused(training, target, message, cms_files):
    keys = keys_of(cms_files, training={"loss": training}, target=target)
    if "branch" in target:
        keys["samples"] = [{"name": "a", "files": "a.root"}]
    with pytest.raises(ConfigError) as caught:
        Config.from_mapping(keys)
    assert "loss" in str(caught.value)
    assert message in str(caught.value)


def test_every_loss_is_known_to_the_schema_by_its_name():
    described = json_schema()["$defs"]["Training"]["properties"]["loss"]
    names = {name for of_kind in LOSSES.values() for name in of_kind}
    assert set(described["anyOf"][0]["enum"]) == names
    for word, of_word in loss_names().items():
        assert f"{word}: {', '.join(of_word)}" in described["description"]


def test_every_loss_of_ours_is_its_sum_over_events():
    rng = np.random.default_rng(0)
    cases = {
        "binary": (BINARY, (7,), rng.integers(0, 2, 7)),
        "classes": (Classes(("a", "b", "c")), (7, 3), rng.integers(0, 3, 7)),
        "regression": (NUMBERS, (7, 2), rng.normal(size=(7, 2))),
    }
    for kind, (objective, shape, drawn) in cases.items():
        outputs = torch.from_numpy(rng.normal(size=shape).astype(np.float32))
        y, w = (torch.from_numpy(each.astype(np.float32)) for each in (drawn, rng.normal(size=7)))
        for loss in LOSSES[kind].values():
            losses = loss.per_event(outputs, objective.targets_of()(y))
            assert losses.shape == (7,)
            assert (losses >= 0).all()
            torch.testing.assert_close(objective.batch_loss(loss)(outputs, y, w), losses @ w)
