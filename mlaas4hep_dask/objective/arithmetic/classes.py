"""The arithmetic of three and more classes."""

# No `from __future__ import annotations`: torch.jit reads the annotations of buffers as types.
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mlaas4hep_dask.objective.arithmetic.activation import Activation
from mlaas4hep_dask.objective.arithmetic.curves import accuracy, auc, fill, roc_points

CLASS_BINS = 1 << 14  # of the logit of one class against all others


class Softmax(Activation):
    """Logits to the probabilities of all classes."""

    def forward(self, logits: torch.Tensor, x: torch.Tensor, missing: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        """As `Activation`."""
        return torch.softmax(logits.reshape(-1, self.num_outputs), dim=1)


class ClassesTally:
    """Accuracy, confusion matrix, and AUC of each class against all others.

    Parameters
    ----------
    names : tuple of str
        The classes.
    """

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names
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
        areas = [area for area in by_class.values() if area is not None]
        return {
            "auc": sum(areas) / len(areas) if areas else None,
            "accuracy": accuracy(self._confusion),
            "auc_by_class": by_class,
        }

    def detail(self) -> dict[str, Any]:
        """ROC curves by class, and confusion matrix."""
        curves = {name: roc_points(histogram) for name, histogram in self._histograms().items()}
        return {"roc_by_class": curves, "confusion": self._confusion.tolist()}


def _logits_against_others(output: NDArray[np.float32]) -> NDArray[np.float32]:
    """For each class log(p / (1 - p)), with p its softmax, shape (events, classes)."""
    wide = output.astype(np.float64)
    against = np.empty_like(wide)
    for number in range(wide.shape[1]):
        others = np.delete(wide, number, axis=1)
        against[:, number] = wide[:, number] - np.logaddexp.reduce(others, axis=1)
    return against.astype(np.float32)
