import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from paths import REPOSITORY
from strategies import num_examples

from mlaas4hep_dask.errors import DataError
from mlaas4hep_dask.objective import (
    BINARY,
    KINDS,
    LOSSES,
    WORDS,
    Classes,
    Reconstruction,
    Regression,
    TwoClasses,
    objective_from_json,
    objective_of,
)
from mlaas4hep_dask.objective.arithmetic.reconstruction import Rows
from mlaas4hep_dask.objective.objective import Selected, Spread

EXAMPLES = {
    "binary": TwoClasses(("a", "b")),
    "classes": Classes(("a", "b", "c")),
    "regression": Regression(("x", "y"), (1.0, -2.0), (0.5, 4.0)),
    "reconstruction": Reconstruction(("x", "y[0]", "y[1]")),
}
KIND = pytest.mark.parametrize("objective", EXAMPLES.values(), ids=list(EXAMPLES))


def learned(objective, size, rng):
    """Outputs, and what is compared with them, of some events: for the loss and for the tally."""
    outputs = rng.normal(size=(size, *objective.output_tail)).astype(np.float32)
    x = rng.normal(size=(size, 3)).astype(np.float32)
    missing = rng.random((size, 3)) < 0.2
    y = rng.integers(0, len(objective.names), (size, *objective.y_tail)).astype(np.float32)
    if objective.gives_rows:
        rows = np.where(missing, 0, x).astype(np.float32)
        return (
            outputs,
            (torch.from_numpy(rows), torch.from_numpy(missing)),
            Rows(rows, missing, y * 0),
        )
    return outputs, torch.from_numpy(y), y


def test_every_kind_is_among_the_examples():
    assert set(EXAMPLES) == set(KINDS) == set(LOSSES)


@KIND
@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # what bundles hold
def test_a_kind_keeps_what_it_promises(objective):
    outputs, targets, y = learned(objective, 50, np.random.default_rng(0))
    w = np.ones(50, np.float32)
    tensors = torch.from_numpy(outputs)
    total = objective.batch_loss()(tensors, targets, torch.from_numpy(w))
    assert total.shape == ()
    tally = objective.tally(["s"])
    tally.add(outputs, y, w)
    assert objective.headline[0] in tally.values()
    assert objective.metric_rows({**tally.values(), **tally.detail()})
    x, missing = torch.zeros(50, 3), torch.zeros(50, 3, dtype=torch.bool)
    activation = objective.activation()
    scores = activation(tensors, x, missing)
    assert torch.equal(torch.jit.script(activation)(tensors, x, missing), scores)
    assert scores.reshape(50, -1).shape[1] == objective.num_scores == len(objective.score_names)
    assert objective.wrong_scores(float(scores.min()), float(scores.max())) is None
    assert objective_from_json(objective.as_json()) == objective
    assert objective.purpose(["x"], objective.usual_loss).endswith(".")


@KIND
@num_examples(20)
@given(size=st.integers(2, 40), seed=st.integers(0, 2**16))
def test_a_loss_is_the_sum_of_those_of_its_events(objective, size, seed):
    rng = np.random.default_rng(seed)
    outputs, targets, _ = learned(objective, size, rng)
    tensors = torch.from_numpy(outputs)
    w = torch.from_numpy(rng.normal(size=size).astype(np.float32))

    def part(rows):
        if objective.gives_rows:
            return tuple(each[rows] for each in targets)
        return targets[rows]

    for loss in LOSSES[objective.kind].values():
        total = objective.batch_loss(loss)
        each = [total(tensors[i : i + 1], part(slice(i, i + 1)), w[i : i + 1]) for i in range(size)]
        torch.testing.assert_close(
            total(tensors, targets, w), torch.stack(each).sum(), rtol=1e-4, atol=1e-4
        )


def test_what_is_learned_follows_from_the_labels_or_the_target():
    assert objective_of("classification", {"q": 0, "t": 1, "u": 1}) == TwoClasses(("q", "t+u"))
    assert objective_of("classification", {"a": 0, "b": 1, "c": 2}) == Classes(("a", "b", "c"))
    unlabelled = {"a": None}
    assert objective_of("regression", unlabelled, ["x"]) == Regression(("x",))
    assert objective_of("reconstruction", unlabelled) == Reconstruction()
    assert objective_from_json({}) == BINARY
    assert list(WORDS) == ["classification", "regression", "reconstruction"]


def test_nobody_else_asks_for_the_kind():
    asks = re.compile(r"\.kind\s*(==|!=|in)\s*[\"'(](binary|classes|regression|reconstruction)")
    asks_class = re.compile(r"isinstance\([^)]*\b(TwoClasses|Classes|Regression|Reconstruction)\b")
    for file in (REPOSITORY / "mlaas4hep_dask").rglob("*.py"):
        if "objective" not in file.parts:
            text = file.read_text(encoding="utf-8")
            assert not asks.search(text), file
            assert not asks_class.search(text), file


@given(mean=st.floats(-1e12, 1e12), std=st.floats(1e-6, 1e6))
def test_a_target_is_learned_in_steps_far_below_its_spread_or_refused(mean, std):
    values = mean + std * np.linspace(-2, 2, 101)
    spread = Spread(mean, std, values.min(), values.max())
    steps = np.spacing(np.abs(values).max().astype(np.float32)) / std
    selected, kind = Selected(targets={"time": spread}), Regression(("time",))
    if steps < 0.009:
        assert kind.fitted(selected).scales
    elif steps > 0.011:
        with pytest.raises(DataError, match=r"numbers of 32 bits|nothing to learn"):
            kind.fitted(selected)
