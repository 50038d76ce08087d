"""Automatic normalisation: numbers for one branch that follow from quantiles of its values.

A network learns fastest from inputs that look like a bell around 0, whatever the branch looks
like: narrow peaks are wide there, tails are short, and placeholders such as -999 stand beside the
other values instead of far away. So the default maps quantiles to those of a normal distribution,
piece by piece. Where a straight line does nearly the same, it is a straight line.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlaas4hep_dask.specs import BranchSpecs

# Means of 17 equal parts of the values, and the ends of the bulk; what is beyond is a tail.
FRACTIONS = (0.001, 0.005, *((k + 0.5) / 17 for k in range(17)), 0.995, 0.999)
MAX_POINTS = 24  # different values that are all points of their own
STRAIGHTNESS = 0.25  # how far slopes go back to that of a straight line, as a power
MOST_BENT = 30.0  # ratio of two slopes that is looked at for it
NEARLY = 1.7  # ratio of the largest slope to the smallest that is as good as none
GROWTH = 0.25  # of a tail, per factor e
MAX_DECADES = 40  # points of a tail
NORMAL = NormalDist()


def automatic(specs: BranchSpecs, *, is_shown: bool = False) -> dict[str, Any]:
    """Numbers for a branch as `scaling_of` takes them, with a few words about them.

    They depend on extremes and on drawn values alone, and so on the data, however these were cut
    into partitions. The median, or a value beside it, becomes 0, which is what a missing value is
    written as. No value within the extremes becomes larger than some tens, outliers included.

    Parameters
    ----------
    specs : BranchSpecs
        Statistics of the branch.
    is_shown : bool
        The cells of an image show the branch: then 0 stays 0, which an empty cell is written as.

    Returns
    -------
    dict
        ``about``; and ``shift`` and ``scale``, or ``x`` and ``y`` of a piecewise linear function.
    """
    if specs.min is None or specs.max is None:
        return _line(0.0, 1.0, "no value")
    if specs.min == specs.max:
        return _line(specs.min, 1.0, "constant")
    values = np.sort(specs.finite_drawn())
    if is_shown:
        return _from_zero(specs.min, specs.max, values)
    if values.size == 0:
        return _between(specs.min, specs.max)
    points, fractions = _points(values)
    median = float(values[(values.size - 1) // 2])
    if points.size == 1:  # the drawn values are equal, though not all are
        return _with_tails(specs.min, specs.max, points, np.zeros(1), median, "mostly one value")
    scores = np.array([NORMAL.inv_cdf(fraction) for fraction in fractions.tolist()])
    spread = _spread(values)
    if spread > 0 and _is_straight(points, fractions, scores):
        reach = max(points[0] - specs.min, specs.max - points[-1])
        if reach <= points[-1] - points[0]:
            return _line(median, 1.0 / spread, "linear")
        ends = np.unique([points[0], median, points[-1]])
        return _with_tails(specs.min, specs.max, ends, (ends - median) / spread, median, "linear")
    bent = _bent(points, scores, spread)
    few = points.size <= MAX_POINTS and points[0] == specs.min and points[-1] == specs.max
    about = f"{points.size} values" if few and _are_all(values, points) else "normal scores"
    return _with_tails(specs.min, specs.max, points, bent, median, about)


def _line(shift: float, scale: float, about: str) -> dict[str, Any]:
    if not math.isfinite(scale):
        scale, about = 1.0, "constant, but for less than a number can tell apart"
    return {"shift": shift, "scale": scale, "about": f"auto: {about}"}


def _between(low: float, high: float) -> dict[str, Any]:
    """From -1 to 1, for want of anything else that is known."""
    half = high / 2 - low / 2
    return _line(low / 2 + high / 2, 1.0 / half if half else math.inf, "range")


def _from_zero(low: float, high: float, values: NDArray[np.float64]) -> dict[str, Any]:
    """A line through 0 up to where 99 % of the magnitudes lie, and tails."""
    magnitudes = np.abs(values[values != 0])
    usual = max(abs(low), abs(high))
    if magnitudes.size:
        usual = float(np.quantile(magnitudes, 0.99, method="inverted_cdf"))
    if not math.isfinite(1.0 / usual):
        return _line(0.0, 1.0, "from 0")
    ends = np.array([-usual if low < 0 else 0.0, usual if high > 0 else 0.0])
    if -usual <= low and high <= usual:
        return _line(0.0, 1.0 / usual, "from 0")
    return _with_tails(low, high, ends, ends / usual, 0.0, "from 0")


def _points(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Some of the sorted values, ascending, and the fraction of all that lies below each.

    Of equal values half lie below.
    """
    known, counts = np.unique(values, return_counts=True)
    below = (np.cumsum(counts) - counts / 2) / values.size
    if known.size <= MAX_POINTS:
        return known, below
    points = np.unique(np.quantile(values, FRACTIONS, method="inverted_cdf"))
    return points, below[np.searchsorted(known, points)]


def _are_all(values: NDArray[np.float64], points: NDArray[np.float64]) -> bool:
    return bool(np.isin(values, points).all())


def _spread(values: NDArray[np.float64]) -> float:
    """Standard deviation of the normal distribution with these quartiles; 0 without any."""
    first, third = np.quantile(values, [0.25, 0.75], method="inverted_cdf").tolist()
    found: float = (third / 2 - first / 2) * 2 / (2 * NORMAL.inv_cdf(0.75))
    return found if math.isfinite(found) else 0.0


def _is_straight(
    points: NDArray[np.float64], fractions: NDArray[np.float64], scores: NDArray[np.float64]
) -> bool:
    """True for what looks like a bell, or is spread evenly."""
    if points.size <= MAX_POINTS - 4:  # few values, or many equal ones
        return False
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        widths = np.diff(points)
        for bulk in (scores[1:-1], fractions[1:-1]):
            slopes = np.diff(bulk) / widths[1:-1]
            if slopes.min() > 0 and slopes.max() <= NEARLY * slopes.min():
                return True
    return False


def _bent(
    points: NDArray[np.float64], scores: NDArray[np.float64], spread: float
) -> NDArray[np.float64]:
    """Normal scores whose slopes went a little of the way back to those of a straight line."""
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        steps = np.diff(scores)
        ratios = np.diff(points) / spread / steps
        ratios = np.where(np.isfinite(ratios), ratios, MOST_BENT).clip(1 / MOST_BENT, MOST_BENT)
        if spread > 0:
            steps = steps * ratios**STRAIGHTNESS
    return np.concatenate([[0.0], np.cumsum(steps)])


def _with_tails(
    low: float,
    high: float,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    zero: float,
    about: str,
) -> dict[str, Any]:
    """The function through points and on to the extremes, where it grows as a logarithm.

    It is 0 at the point nearest to ``zero``.
    """
    first, last = _slope(x[:2], y[:2], low, high), _slope(x[-2:], y[-2:], low, high)
    above_x, above_y = _tail(high, float(x[-1]), float(y[-1]), last)
    below_x, below_y = _tail(-low, -float(x[0]), -float(y[0]), first)
    xs = [*(-v for v in reversed(below_x)), *x.tolist(), *above_x]
    ys = [*(-v for v in reversed(below_y)), *y.tolist(), *above_y]
    kept = _usable(xs, ys)
    y0 = min((abs(a / 2 - zero / 2), b) for a, b in kept)[1]
    kept = [(a, b - y0) for a, b in kept]
    if len(kept) == 1:
        return _line(zero, math.inf, "")
    if len(kept) == 2:
        (x0, y0), (x1, y1) = kept
        scale = (y1 - y0) / (x1 - x0)
        return _line(x0 if abs(y0) <= abs(y1) else x1, scale, about)
    tails = ", log tails" if above_x[1:] or below_x[1:] else ""
    return {
        "x": [point for point, _ in kept],
        "y": [point for _, point in kept],
        "about": f"auto: {about}{tails}",
    }


def _slope(x: NDArray[np.float64], y: NDArray[np.float64], low: float, high: float) -> float:
    """Slope of an outermost piece; of a single point that to the farther extreme."""
    if x.size == 1:
        return _slope(
            np.array([0.0, max(high - x[0], x[0] - low)]), np.array([0.0, 1.0]), low, high
        )
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        slope = float(np.diff(y)[0] / np.diff(x)[0])
    return min(max(slope, 1e-300), 1e300)


def _tail(high: float, x: float, y: float, slope: float) -> tuple[list[float], list[float]]:
    """Points from (x, y), where the slope is given, up to ``high``: one, or one per decade."""
    if high <= x:
        return [], []
    reach = (high / 2 - x / 2) * (slope / GROWTH) * 2
    reach = min(reach, 1e300)
    decades = math.log10(1.0 + reach)
    num = min(max(math.ceil(decades), 1), MAX_DECADES)
    xs, ys = [], []
    for k in range(1, num):
        far = 10.0 ** (decades * k / num) - 1.0
        xs.append(x + far * (GROWTH / slope))
        ys.append(y + GROWTH * math.log1p(far))
    return [*xs, high], [*ys, y + GROWTH * math.log1p(reach)]


def _usable(x: list[float], y: list[float]) -> list[tuple[float, float]]:
    """The points that lines with finite slopes, both ways, lead to; with more where one is far."""
    kept = [(x[0], y[0])]
    lift = 0.0
    for b, v in zip(x[1:], y[1:], strict=True):
        a, u = kept[-1]
        if math.isinf(b - a):
            kept.append((a / 2 + b / 2, u / 2 + (v + lift) / 2))
            a, u = kept[-1]
        width = b - a
        lift += max(1e-307 * width - (v + lift - u), 0.0)  # the inverse slope is finite
        slope = (v + lift - u) / width if width > 0 else math.inf
        if 0 < slope < math.inf:
            kept.append((b, v + lift))
    return kept
