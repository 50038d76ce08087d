"""Loss and AUC of a split from mergeable sums; no process holds one score per event."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NUM_BINS = 1 << 16
_ROC_POINTS = 200


def new_histogram() -> NDArray[np.float64]:
    """An empty histogram of logits, shape (2 labels, bins)."""
    return np.zeros((2, NUM_BINS))


def bin_of(logits: NDArray[np.float32]) -> NDArray[np.int64]:
    """Bin of each logit; a larger logit never has a smaller bin.

    A bin holds the float32 values that share sign, exponent and 7 bits of mantissa, so its
    width is at most 1/128 of the value and no range has to be known beforehand.
    """
    signed_once = np.asarray(logits, dtype=np.float32) + np.float32(0)  # -0 becomes 0
    bits = np.ascontiguousarray(signed_once).view(np.uint32).astype(np.int64)
    ordered = np.where(bits >> 31 == 1, 0xFFFFFFFF - bits, bits + 0x80000000)
    return ordered >> 16


def fill(
    histogram: NDArray[np.float64],
    logits: NDArray[np.float32],
    y: NDArray[np.float32],
    w: NDArray[np.float32],
) -> None:
    """Add events with weights to a histogram of logits, in place."""
    bins = bin_of(logits)
    for label in (0, 1):
        chosen = y == label
        histogram[label] += np.bincount(bins[chosen], weights=w[chosen], minlength=NUM_BINS)


@dataclass(frozen=True)
class Roc:
    """A receiver operating characteristic: rates at falling thresholds, from (0, 0) to (1, 1)."""

    false_positive_rate: NDArray[np.float64]
    true_positive_rate: NDArray[np.float64]


def auc(histogram: NDArray[np.float64]) -> float | None:
    """Area under the ROC curve, or None when a label is absent.

    It is the probability that an event of label 1 scores higher than one of label 0, events in
    one bin counting one half.
    """
    background, signal = histogram
    total = background.sum() * signal.sum()
    if total <= 0:
        return None
    below = np.cumsum(background) - background
    return float((signal * (below + 0.5 * background)).sum() / total)


def roc(histogram: NDArray[np.float64]) -> Roc:
    """ROC curve with at most a few hundred points; empty when a label is absent."""
    background, signal = histogram[:, ::-1]
    if background.sum() <= 0 or signal.sum() <= 0:
        return Roc(np.zeros(0), np.zeros(0))
    used = np.flatnonzero(background + signal)
    fpr = np.concatenate([[0.0], (np.cumsum(background) / background.sum())[used]])
    tpr = np.concatenate([[0.0], (np.cumsum(signal) / signal.sum())[used]])
    if len(fpr) > _ROC_POINTS:  # equal steps along the curve
        length = fpr + tpr
        wanted = np.linspace(0.0, length[-1], _ROC_POINTS)
        kept = np.unique(np.searchsorted(length, wanted).clip(0, len(fpr) - 1))
        fpr, tpr = fpr[kept], tpr[kept]
    return Roc(fpr, tpr)
