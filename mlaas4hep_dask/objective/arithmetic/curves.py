"""Curves and metrics from mergeable histograms; no process holds one score per event."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NUM_BINS = 1 << 16
_ROC_POINTS = 200
RESIDUAL_BINS = 60  # of the histogram in the report
RESIDUAL_SHARE = 0.995  # of the events that it shows


def bin_of(logits: NDArray[np.float32], num_bins: int = NUM_BINS) -> NDArray[np.int64]:
    """Bin of each logit; a larger logit never has a smaller bin.

    Of 2^16 bins, each holds the float32 values that share sign, exponent and 7 bits of mantissa,
    so its width is at most 1/128 of the value and no range has to be known beforehand. Half as
    many bins, a power of two, are twice as wide.
    """
    signed_once = np.asarray(logits, dtype=np.float32) + np.float32(0)  # -0 becomes 0
    bits = np.ascontiguousarray(signed_once).view(np.uint32).astype(np.int64)
    ordered = np.where(bits >> 31 == 1, 0xFFFFFFFF - bits, bits + 0x80000000)
    return ordered // ((1 << 32) // num_bins)


def bin_edges(bins: NDArray[np.int64], num_bins: int = NUM_BINS) -> NDArray[np.float64]:
    """The value where each bin begins; the inverse of `bin_of`."""
    ordered = bins.astype(np.int64) * ((1 << 32) // num_bins)
    bits = np.where(ordered < 0x80000000, 0xFFFFFFFF - ordered, ordered - 0x80000000)
    with np.errstate(invalid="ignore"):  # the outermost bins hold NaN
        return bits.astype(np.uint32).view(np.float32).astype(np.float64)


def fill(
    histogram: NDArray[np.float64],
    logits: NDArray[np.float32],
    y: NDArray[np.float32],
    w: NDArray[np.float32],
) -> None:
    """Add events with weights to a histogram of logits, in place."""
    num_bins = histogram.shape[1]
    bins = bin_of(logits, num_bins)
    for label in (0, 1):
        has_label = y == label
        histogram[label] += np.bincount(bins[has_label], weights=w[has_label], minlength=num_bins)


def accuracy(confusion: NDArray[np.float64]) -> float | None:
    """Share of the weight of a confusion matrix on its diagonal; None without weight."""
    total = float(confusion.sum())
    return float(np.trace(confusion)) / total if total > 0 else None


@dataclass(frozen=True)
class Roc:
    """A receiver operating characteristic: rates at falling thresholds, from (0, 0) to (1, 1)."""

    false_positive_rate: NDArray[np.float64]
    true_positive_rate: NDArray[np.float64]


def auc(histogram: NDArray[np.float64]) -> float | None:
    """Area under the ROC curve, or None when the weights of a label do not sum to more than 0.

    It is the probability that an event of label 1 scores higher than one of label 0, events in
    one bin counting one half. Negative weights enter the sums as they are: the result estimates
    the same area, and may leave [0, 1] where they prevail.
    """
    background, signal = histogram
    if not has_both(histogram):
        return None
    total = background.sum() * signal.sum()
    below = np.cumsum(background) - background
    return float((signal * (below + 0.5 * background)).sum() / total)


def has_both(histogram: NDArray[np.float64]) -> bool:
    """True when the weights of either label sum to more than 0."""
    background, signal = histogram
    return bool(background.sum() > 0 and signal.sum() > 0)


def roc(histogram: NDArray[np.float64]) -> Roc:
    """ROC curve with at most a few hundred points; empty where `auc` is None.

    Where negative weights prevail, the curve turns back.
    """
    if not has_both(histogram):
        return Roc(np.zeros(0), np.zeros(0))
    background, signal = histogram[:, ::-1]
    bins = np.flatnonzero((background != 0) | (signal != 0))
    fpr = np.concatenate([[0.0], (np.cumsum(background) / background.sum())[bins]])
    tpr = np.concatenate([[0.0], (np.cumsum(signal) / signal.sum())[bins]])
    if len(fpr) > _ROC_POINTS:  # equal steps along the curve
        steps = np.abs(np.diff(fpr)) + np.abs(np.diff(tpr))
        length = np.concatenate([[0.0], np.cumsum(steps)])
        lengths = np.linspace(0.0, length[-1], _ROC_POINTS)
        places = np.unique(np.searchsorted(length, lengths).clip(0, len(fpr) - 1))
        fpr, tpr = fpr[places], tpr[places]
    return Roc(fpr, tpr)


def roc_points(histogram: NDArray[np.float64]) -> dict[str, list[float]]:
    """The points of `roc` as JSON values."""
    curve = roc(histogram)
    return {
        "false_positive_rate": curve.false_positive_rate.tolist(),
        "true_positive_rate": curve.true_positive_rate.tolist(),
    }


def residual_histogram(weights: NDArray[np.float64], unit: float) -> dict[str, list[float]]:
    """A histogram in equal bins around 0 of one in the bins of `bin_of`, its values times unit."""
    num_bins = len(weights)
    bins = np.flatnonzero(weights)
    edges = bin_edges(np.stack([bins, bins + 1], axis=1).clip(0, num_bins - 1), num_bins)
    if not bins.size or not np.isfinite(edges).all():
        return {"edges": [], "counts": []}
    edges *= unit
    contents = weights[bins]
    far = np.abs(edges).max(axis=1)
    order = np.argsort(far, kind="stable")
    share = np.cumsum(np.abs(contents[order]))
    widest = float(far[order[np.searchsorted(share, RESIDUAL_SHARE * share[-1])]])
    bounds = np.linspace(-widest, widest, RESIDUAL_BINS + 1)
    above = np.cumsum(contents)
    running = np.stack([above - contents, above], axis=1)  # at both edges of each bin
    heights = np.diff(np.interp(bounds, edges.ravel(), running.ravel()))
    return {"edges": bounds.tolist(), "counts": heights.tolist()}
