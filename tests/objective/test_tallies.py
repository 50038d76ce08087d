import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import num_examples

from mlaas4hep_dask.errors import EncodeError
from mlaas4hep_dask.objective import (
    LOSSES,
    Classes,
    Reconstruction,
    Regression,
    TwoClasses,
    objective_from_json,
)
from mlaas4hep_dask.objective.arithmetic.curves import NUM_BINS, bin_edges, bin_of

THREE = Classes(("a", "b", "c"))
TWO = TwoClasses(("a", "b"))
NUMBERS = Regression(("x", "y"), (10.0, -3.0), (0.5, 4.0))

ROWS = Reconstruction(("x", "y[0]", "y[1]"))


def drawn(size=4_000, seed=3):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, size).astype(np.float32)
    output = rng.normal(size=(size, 3)) + 1.5 * np.eye(3)[y.astype(int)]
    w = np.where(rng.random(size) < 0.1, -0.5, rng.random(size) + 0.5)  # a tenth is negative
    return output.astype(np.float32), y, w.astype(np.float32)


def area(scores, signal, w):
    """Weighted pairs of signal and background in the right order, equal ones counting one half."""
    w = w.astype(np.float64)
    s, b = scores[signal], scores[~signal]
    right = (s[:, None] > b).astype(float) + 0.5 * (s[:, None] == b)
    return w[signal] @ right @ w[~signal] / (w[signal].sum() * w[~signal].sum())


def test_metrics_of_classes_are_those_of_all_pairs_and_cells():
    output, y, w = drawn()
    tally = THREE.tally()
    tally.add(output, y, w)
    p = np.exp(output.astype(float))
    p /= p.sum(axis=1, keepdims=True)
    found = tally.values()
    for number, name in enumerate("abc"):
        expected = area(p[:, number], y == number, w)
        assert found["auc_by_class"][name] == pytest.approx(expected, abs=1e-3)
    confusion = np.zeros((3, 3))
    np.add.at(confusion, (y.astype(int), output.argmax(axis=1)), w)
    np.testing.assert_allclose(tally.detail()["confusion"], confusion, rtol=1e-6)
    assert found["accuracy"] == pytest.approx(confusion.trace() / w.sum(), rel=1e-5)


def test_metrics_of_two_classes_are_those_of_all_pairs_and_cells():
    output, y, w = drawn()
    logits, y = output[:, 1], (y == 1).astype(np.float32)
    tally = TWO.tally()
    tally.add(logits, y, w)
    assert tally.values()["auc"] == pytest.approx(area(logits, y == 1, w), abs=1e-3)
    confusion = np.zeros((2, 2))
    np.add.at(confusion, (y.astype(int), (logits >= 0).astype(int)), w)
    np.testing.assert_allclose(tally.detail()["confusion"], confusion, rtol=1e-6)


def test_metrics_of_a_regression_are_in_the_units_of_the_targets():
    rng = np.random.default_rng(1)
    y = np.stack([10 + 2 * rng.normal(size=5_000), -3 + rng.normal(size=5_000) / 4], axis=1)
    w = rng.random(5_000) + 0.5
    predicted = y + rng.normal(size=y.shape) * [0.5, 0.1] + [0.2, 0.0]
    output = ((predicted - NUMBERS.shifts) * NUMBERS.scales).astype(np.float32)
    tally = NUMBERS.tally()
    tally.add(output, y.astype(np.float32), w.astype(np.float32))
    for number, name in enumerate("xy"):
        error = predicted[:, number] - y[:, number]
        true = y[:, number]
        spread = np.average((true - np.average(true, weights=w)) ** 2, weights=w)
        expected = {
            "rmse": np.average(error**2, weights=w) ** 0.5,
            "mae": np.average(abs(error), weights=w),
            "bias": np.average(error, weights=w),
            "r2": 1 - np.average(error**2, weights=w) / spread,
        }
        assert tally.values()["targets"][name] == pytest.approx(expected, abs=1e-5)
        residuals = tally.detail()["residuals"][name]
        counts, edges = np.array(residuals["counts"]), np.array(residuals["edges"])
        assert counts.sum() == pytest.approx(0.995 * w.sum(), rel=0.01)
        exact, _ = np.histogram(error, bins=edges, weights=w)
        assert abs(counts - exact).sum() < 0.05 * w.sum()


@pytest.mark.parametrize("objective", [TWO, THREE, NUMBERS], ids=lambda each: each.kind)
def test_tallies_of_parts_add_up_and_an_empty_one_has_no_metrics(objective):
    output, y, w = drawn(900)
    output = output[:, 0] if objective is TWO else output[:, : objective.num_outputs]
    y = np.minimum(y, 1) if objective is TWO else y
    y = np.stack([y, y], axis=1) if objective is NUMBERS else y
    whole, *parts = (objective.tally() for _ in range(3))
    whole.add(output, y, w)
    for part, rows in zip(parts, (slice(0, 200), slice(200, None)), strict=True):
        part.add(output[rows], y[rows], w[rows])
    np.testing.assert_allclose(parts[0].sums + parts[1].sums, whole.sums, rtol=1e-9, atol=1e-9)
    empty = objective.tally()
    assert all(
        value is None or set(map(str, value)) <= {"a", "b", "c", "x", "y"}
        for value in empty.values().values()
    )
    empty.detail()


@given(st.integers(0, NUM_BINS - 1))
@num_examples(200)
def test_a_bin_begins_where_its_edge_says(number):
    edge = bin_edges(np.array([number]))
    if np.isfinite(edge).all() and number != NUM_BINS // 2 - 1:  # -0 belongs to the bin of 0
        assert bin_of(edge.astype(np.float32))[0] == number


def test_a_loss_is_the_weighted_sum_over_events_and_the_mean_over_targets():
    output, y, w = map(torch.from_numpy, drawn(50))
    loss = THREE.batch_loss()(output, y, w)
    rows = -torch.log_softmax(output.double(), dim=1)[torch.arange(50), y.long()]
    assert float(loss) == pytest.approx(float(rows @ w.double()), rel=1e-5)
    numbers, targets = output[:, :2], torch.stack([y * 2 + 9, y - 3], dim=1)
    z = (targets.double() - torch.tensor(NUMBERS.shifts)) * torch.tensor(NUMBERS.scales)
    far = (numbers.double() - z).abs()
    losses = {"mse": far**2, "huber": torch.where(far < 1, far**2 / 2, far - 0.5)}
    for name, each in losses.items():
        expected = float(each.mean(dim=1) @ w.double())
        assert float(
            NUMBERS.batch_loss(LOSSES["regression"][name])(numbers, targets, w)
        ) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("objective", [TWO, THREE, NUMBERS, ROWS], ids=lambda each: each.kind)
def test_an_objective_survives_a_manifest(objective):
    assert objective_from_json(objective.as_json()) == objective


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "ordinal"},
        {"classes": ["a", "b"]},
        {"classes": "abc"},
        {"kind": "regression"},
        {"kind": "reconstruction"},
        {"kind": "reconstruction", "columns": []},
        {"kind": "regression", "targets": ["a"], "shifts": [0.0], "scales": [0.0]},
        {"kind": "regression", "targets": ["a"], "shifts": [], "scales": [1.0]},
    ],
)
def test_an_objective_that_a_manifest_does_not_describe_is_refused(change):
    with pytest.raises(EncodeError, match="output"):
        objective_from_json({**THREE.as_json(), **change})
