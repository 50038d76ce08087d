"""Bins of the report's histograms: a range that outliers do not stretch, and equal populations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlaas4hep_dask.specs import BranchSpecs, Specs

NUM_BINS = 50
_ENDS = (0.005, 0.995)  # of the values that are always in the picture
_NEAR = 0.25  # of their range: how far beyond them the extremes are in it too
_FARTHEST = 1e300


class Bins(NamedTuple):
    """Bins of the values of one branch.

    Parameters
    ----------
    low, high : float
        Ends of `NUM_BINS` equal bins; values outside are counted beside them.
    populations : ndarray of float64, shape (bins - 1,)
        Ascending limits of bins that hold equally many values, or one value each; a value that
        equals a limit lies below it.
    """

    low: float
    high: float
    populations: NDArray[np.float64]


def bins_of(specs: Specs) -> dict[str, Bins]:
    """By branch: the bins that follow from extremes and drawn values."""
    return {name: _bins(entry) for name, entry in specs.branches.items()}


def equal_edges(low: float, high: float) -> NDArray[np.float64]:
    """Edges of equal bins from ``low`` to ``high``, or around both if these are too near."""
    return np.linspace(*with_width(low, high), NUM_BINS + 1)


def with_width(low: float, high: float) -> tuple[float, float]:
    """A range that can be divided into bins, the given one if it can be."""
    low, high = (min(max(end, -_FARTHEST), _FARTHEST) for end in (low, high))
    size = max(abs(low), abs(high))
    if high - low > max(NUM_BINS * float(np.spacing(size)), 1e-290):
        return low, high
    padding = max(0.5, 1e-6 * size)
    return low - padding, high + padding


def _bins(specs: BranchSpecs) -> Bins:
    low, high = specs.min or 0.0, specs.max or 0.0
    values = np.sort(specs.finite_drawn())
    if values.size == 0:
        ends = with_width(low, high)
        return Bins(*ends, equal_edges(*ends)[1:-1])
    distinct = np.unique(values)
    limits = distinct[:-1]
    if distinct.size > NUM_BINS:
        fractions = np.arange(1, NUM_BINS) / NUM_BINS
        limits = np.unique(np.quantile(values, fractions, method="inverted_cdf"))
    return Bins(*_picture(low, high, values), limits)


def _picture(low: float, high: float, values: NDArray[np.float64]) -> tuple[float, float]:
    first, last = np.quantile(values, _ENDS, method="inverted_cdf").tolist()
    if first == last:  # nearly all are equal: the range of the others
        others = values[values != first]
        if others.size:
            ends = np.quantile(others, _ENDS, method="inverted_cdf").tolist()
            first, last = min(first, ends[0]), max(last, ends[1])
        else:
            first, last = low, high
    near = _NEAR * (last / 2 - first / 2) * 2
    return with_width(low if first - low <= near else first, high if high - last <= near else last)


def filled(
    values: NDArray[np.floating], weights: NDArray[np.float64], bins: Bins
) -> tuple[NDArray[np.float64], tuple[int, int]]:
    """Sums of weights in the equal bins, shape (bins,), and numbers of values below and above."""
    edges = equal_edges(bins.low, bins.high)
    places = np.searchsorted(edges, values, side="right") - 1
    places[values == edges[-1]] = NUM_BINS - 1
    # The extremes themselves may be a rounding outside, in float32 above all.
    slack = 1e-4 * (edges[1] - edges[0])
    places[(places < 0) & (values >= edges[0] - slack)] = 0
    places[(places >= NUM_BINS) & (values <= edges[-1] + slack)] = NUM_BINS - 1
    inside = (places >= 0) & (places < NUM_BINS)
    sums = np.bincount(places[inside], weights=weights[inside], minlength=NUM_BINS)
    return sums.astype(np.float64), (int((places < 0).sum()), int((places >= NUM_BINS).sum()))


def populations(
    values: NDArray[np.floating], weights: NDArray[np.float64], bins: Bins
) -> NDArray[np.float64]:
    """Sums of weights in the bins of equal population."""
    places = np.searchsorted(bins.populations, values, side="left")
    sums = np.bincount(places, weights=weights, minlength=bins.populations.size + 1)
    return sums.astype(np.float64)


BranchBins = Mapping[str, Bins]
