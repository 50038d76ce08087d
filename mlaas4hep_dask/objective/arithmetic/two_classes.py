"""The arithmetic of two classes."""

# No `from __future__ import annotations`: torch.jit reads the annotations of buffers as types.
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mlaas4hep_dask.objective.arithmetic.activation import Activation
from mlaas4hep_dask.objective.arithmetic.curves import (
    NUM_BINS,
    accuracy,
    auc,
    bin_of,
    fill,
    roc_points,
)


class Sigmoid(Activation):
    """One logit to the probability of label 1."""

    def forward(self, logits: torch.Tensor, x: torch.Tensor, missing: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        """As `Activation`."""
        return torch.sigmoid(logits.reshape(-1))


class TwoClassesTally:
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
        return {"auc": auc(self._histogram), "accuracy": accuracy(self._confusion())}

    def detail(self) -> dict[str, Any]:
        """ROC curve and confusion matrix."""
        return {"roc": roc_points(self._histogram), "confusion": self._confusion().tolist()}
