"""Tallies: mergeable sums over the events of a split, from which its metrics follow.

A tally is one flat array of float64, so that ranks add theirs up in one exchange. Weights are
those of the events, without what balances the classes in the loss.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mlaas4hep_dask.encode.outputs import Outputs
from mlaas4hep_dask.train.metrics import NUM_BINS, auc, bin_of, fill, residual_histogram, roc
from mlaas4hep_dask.train.reconstruction import ReconstructionTally

CLASS_BINS = 1 << 14  # of the logit of one class against all others


class Tally(Protocol):
    """Sums of one split."""

    sums: NDArray[np.float64]

    def add(self, output: NDArray[np.float32], y: Any, w: NDArray[Any]) -> None:
        """Add events: what the network gave, labels, targets or `Rows`, and weights."""

    def values(self) -> dict[str, Any]:
        """Metrics, as JSON values; None where a metric is not defined."""

    def detail(self) -> dict[str, Any]:
        """Curves and tables, as JSON values."""


def tally_of(outputs: Outputs, samples: Sequence[str] = ()) -> Tally:
    """An empty tally that fits the outputs.

    Parameters
    ----------
    outputs : Outputs
        What the network gives.
    samples : sequence of str
        The samples, which the tally of a reconstruction tells apart.
    """
    if outputs.kind == "reconstruction":
        return ReconstructionTally(outputs, samples)
    if outputs.kind == "binary":
        return BinaryTally()
    if outputs.kind == "classes":
        return ClassTally(outputs)
    return RegressionTally(outputs)


class BinaryTally:
    """AUC, accuracy, ROC curve and confusion matrix of two classes."""

    def __init__(self) -> None:
        self.sums = np.zeros(2 * NUM_BINS)

    @property
    def _histogram(self) -> NDArray[np.float64]:
        return self.sums.reshape(2, NUM_BINS)

    def add(self, output: NDArray[np.float32], y: NDArray[Any], w: NDArray[Any]) -> None:
        """Add events with logits and labels, shape (events,)."""
        fill(self._histogram, output, y, w)

    def _confusion(self) -> NDArray[np.float64]:
        zero = int(bin_of(np.zeros(1, np.float32))[0])  # a score of 1/2 means label 1
        halves = np.split(self._histogram, [zero], axis=1)
        return np.stack([half.sum(axis=1) for half in halves], axis=1)

    def values(self) -> dict[str, Any]:
        """AUC and accuracy."""
        return {"auc": auc(self._histogram), "accuracy": _accuracy(self._confusion())}

    def detail(self) -> dict[str, Any]:
        """ROC curve and confusion matrix."""
        return {"roc": _roc(self._histogram), "confusion": self._confusion().tolist()}


class ClassTally:
    """Accuracy, confusion matrix, and AUC of each class against all others."""

    def __init__(self, outputs: Outputs) -> None:
        self._names = outputs.names
        size = len(self._names)
        self.sums = np.zeros(size * size + size * 2 * CLASS_BINS)

    @property
    def _confusion(self) -> NDArray[np.float64]:
        size = len(self._names)
        return self.sums[: size * size].reshape(size, size)

    def _histograms(self) -> dict[str, NDArray[np.float64]]:
        size = len(self._names)
        parts = self.sums[size * size :].reshape(size, 2, CLASS_BINS)
        return dict(zip(self._names, parts, strict=True))

    def add(self, output: NDArray[np.float32], y: NDArray[Any], w: NDArray[Any]) -> None:
        """Add events with logits, shape (events, classes), and labels, shape (events,)."""
        size = len(self._names)
        labels = y.astype(np.int64)
        cells = labels * size + np.argmax(output, axis=1)
        self.sums[: size * size] += np.bincount(cells, weights=w, minlength=size * size)
        against = _logits_against_others(output)
        for number, histogram in enumerate(self._histograms().values()):
            fill(histogram, against[:, number], labels == number, w)

    def values(self) -> dict[str, Any]:
        """Accuracy, AUC of each class, and their mean."""
        by_class = {name: auc(histogram) for name, histogram in self._histograms().items()}
        known = [area for area in by_class.values() if area is not None]
        return {
            "auc": sum(known) / len(known) if known else None,
            "accuracy": _accuracy(self._confusion),
            "auc_by_class": by_class,
        }

    def detail(self) -> dict[str, Any]:
        """ROC curves by class, and confusion matrix."""
        curves = {name: _roc(histogram) for name, histogram in self._histograms().items()}
        return {"roc_by_class": curves, "confusion": self._confusion.tolist()}


class RegressionTally:
    """Root mean square, mean absolute and mean error, and R², in units of the targets."""

    _MOMENTS = 6  # sums of w, wz, wz², wr, wr², w|r| with z the scaled target, r the residual

    def __init__(self, outputs: Outputs) -> None:
        self._outputs = outputs
        self.sums = np.zeros(len(outputs.names) * (self._MOMENTS + NUM_BINS))

    def _parts(self) -> NDArray[np.float64]:
        return self.sums.reshape(len(self._outputs.names), -1)

    def add(self, output: NDArray[np.float32], y: NDArray[Any], w: NDArray[Any]) -> None:
        """Add events with scaled outputs and targets, both of shape (events, targets)."""
        weights = w.astype(np.float64)
        for number, part in enumerate(self._parts()):
            shift, scale = self._outputs.shifts[number], self._outputs.scales[number]
            z = (y[:, number].astype(np.float64) - shift) * scale
            r = output[:, number].astype(np.float64) - z
            terms = (np.ones_like(z), z, z * z, r, r * r, np.abs(r))
            part[: self._MOMENTS] += [float((weights * term).sum()) for term in terms]
            bins = bin_of(r.astype(np.float32))
            part[self._MOMENTS :] += np.bincount(bins, weights=weights, minlength=NUM_BINS)

    def values(self) -> dict[str, Any]:
        """R² averaged over the targets, and all metrics of each target."""
        targets = {
            name: self._metrics(part[: self._MOMENTS], scale)
            for name, part, scale in zip(
                self._outputs.names, self._parts(), self._outputs.scales, strict=True
            )
        }
        shares = [share for m in targets.values() if (share := m["r2"]) is not None]
        whole = len(shares) == len(targets)
        return {"r2": sum(shares) / len(shares) if whole else None, "targets": targets}

    def _metrics(self, moments: NDArray[np.float64], scale: float) -> Mapping[str, float | None]:
        total = float(moments[0])
        if total <= 0:
            return dict.fromkeys(("rmse", "mae", "bias", "r2"))
        _, mean, square, bias, error, absolute = (moments / total).tolist()
        variance = square - mean * mean
        return {
            "rmse": max(error, 0.0) ** 0.5 / scale,
            "mae": absolute / scale,
            "bias": bias / scale,
            "r2": 1 - error / variance if variance > 1e-12 else None,
        }

    def detail(self) -> dict[str, Any]:
        """Histogram of the residuals of each target."""
        parts = zip(self._outputs.names, self._parts(), self._outputs.scales, strict=True)
        residuals = {
            name: residual_histogram(part[self._MOMENTS :], 1 / scale)
            for name, part, scale in parts
        }
        return {"residuals": residuals}


def _accuracy(confusion: NDArray[np.float64]) -> float | None:
    total = float(confusion.sum())
    return float(np.trace(confusion)) / total if total > 0 else None


def _roc(histogram: NDArray[np.float64]) -> dict[str, list[float]]:
    curve = roc(histogram)
    return {
        "false_positive_rate": curve.false_positive_rate.tolist(),
        "true_positive_rate": curve.true_positive_rate.tolist(),
    }


def _logits_against_others(output: NDArray[np.float32]) -> NDArray[np.float32]:
    """For each class log(p / (1 - p)), with p its softmax, shape (events, classes)."""
    wide = output.astype(np.float64)
    against = np.empty_like(wide)
    for number in range(wide.shape[1]):
        others = np.delete(wide, number, axis=1)
        against[:, number] = wide[:, number] - np.logaddexp.reduce(others, axis=1)
    return against.astype(np.float32)
