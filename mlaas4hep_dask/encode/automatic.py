"""Automatic normalisation: numbers for one branch that follow from quantiles of its values.

A network learns fastest from inputs of like size, none of which has tails that drown the others.
So the bulk of every branch is as wide as that of a normal distribution. Where the tails are short,
a straight line does that: what is linear in the data, such as the ends of a phase space, stays so.
Long tails, and values that crowd at an end, become those of a normal distribution. Where a
placeholder such as -999 goes is for `placeholders` to say; by itself it stands beside the others.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlaas4hep_dask.encode.placeholders import MAX_POINTS, Role, set_aside
from mlaas4hep_dask.specs import BranchSpecs

# Means of 17 equal parts of the values, and the ends of the bulk; what is beyond is a tail.
FRACTIONS = (0.001, 0.005, *((k + 0.5) / 17 for k in range(17)), 0.995, 0.999)
ENDS = (0.005, 0.05, 0.25, 0.75, 0.95, 0.995)  # what the shape is told by
SHORT = 4.0  # tail beyond a quartile, as a multiple of the distance of the quartiles
CROWDED = 0.01  # the outer 5 % of the values, likewise, if they crowd
GAP = 0.1  # between a placeholder and the bulk, once encoded
APART = 4.0  # likewise, where it is set apart
FAR = 12.0  # from one that is far to the median of the bulk, before both are scaled
GROWTH = 0.25  # of a tail, per factor e
MAX_DECADES = 40  # points of a tail
NORMAL = NormalDist()
WIDTH = NORMAL.inv_cdf(ENDS[-1]) - NORMAL.inv_cdf(ENDS[0])


def automatic(
    specs: BranchSpecs, *, is_shown: bool = False, role: Role = "beside"
) -> dict[str, Any]:
    """Numbers for a branch as `scaling_of` takes them, with a few words about them.

    They depend on extremes and on drawn values alone, and so on the data, however these were cut
    into partitions. The median, or a value beside it, becomes 0, which is what a missing value is
    written as, unless a placeholder is far. No value within the extremes becomes larger than some
    tens, outliers included.

    Parameters
    ----------
    specs : BranchSpecs
        Statistics of the branch.
    is_shown : bool
        The cells of an image show the branch: then 0 stays 0, which an empty cell is written as.
    role : {"beside", "apart", "far", "missing"}
        Where the placeholder goes, if there is one; see `roles_of`.

    Returns
    -------
    dict
        ``about``; ``shift`` and ``scale``, or ``x`` and ``y`` of a piecewise linear function; and
        perhaps ``missing``, the placeholder that is encoded as missing.
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
    below, bulk, above = set_aside(values)
    apart = np.concatenate([below, above])
    if apart.size != 1:
        role = "beside"
    if role == "missing":
        how = _numbers(specs, bulk, bulk, apart[:0], apart[:0], may_crowd=True)
        return {**how, "missing": float(apart[0]), "about": f"{how['about']}, {apart[0]:g} missing"}
    how = _numbers(specs, values, bulk, below, above, may_crowd=apart.size > 0)
    return how if role == "beside" else _moved(how, values, bulk, float(apart[0]), role)


def _numbers(
    specs: BranchSpecs,
    values: NDArray[np.float64],
    bulk: NDArray[np.float64],
    below: NDArray[np.float64],
    above: NDArray[np.float64],
    *,
    may_crowd: bool,
) -> dict[str, Any]:
    """The numbers for sorted values, which are the bulk and placeholders on both sides of it."""
    assert specs.min is not None
    assert specs.max is not None
    median = _median(values)
    points, fractions = _points(bulk)
    if points.size == 1:  # the drawn values are equal, though not all are
        return _with_tails(specs.min, specs.max, points, np.zeros(1), median, "mostly one value")
    if _is_short(bulk, may_crowd=may_crowd):
        scale = _scale(bulk)
        x = _straight(specs.min, specs.max, _ends(bulk)[[0, -1]], below.size > 0, above.size > 0)
        if x.size == 0:
            return _line(median, scale, "linear")
        zero = median if x[0] < median < x[-1] else _median(bulk)
        x = np.unique([x[0], zero, x[-1]])
        y, about = (x / 2 - zero / 2) * (2 * scale), "linear"
    else:
        x, y = points, np.array([NORMAL.inv_cdf(fraction) for fraction in fractions.tolist()])
        about = "normal scores"
        low, high = y[np.searchsorted(x, _ends(bulk)[[0, -1]])].tolist()
        few = points.size <= MAX_POINTS and points[0] == specs.min and points[-1] == specs.max
        if few and _are_all(values, points):
            about = f"{points.size} values"
        elif high > low:  # not nearly all values are equal
            y *= WIDTH / (high - low)
    x = np.concatenate([below, x, above])
    lower, upper = GAP * np.arange(below.size, 0, -1), GAP * np.arange(1, above.size + 1)
    y = np.concatenate([y[0] - lower, y, y[-1] + upper])
    return _with_tails(specs.min, specs.max, x, y, median, about)


def _moved(
    how: dict[str, Any],
    values: NDArray[np.float64],
    bulk: NDArray[np.float64],
    placeholder: float,
    role: Role,
) -> dict[str, Any]:
    """The same with the placeholder, and what is beyond it, elsewhere than beside the others."""
    if "x" not in how or placeholder not in how["x"]:
        return how
    x, y = np.array(how["x"]), np.array(how["y"])
    is_low = placeholder < bulk[0]
    end = _ends(bulk)[0 if is_low else -1]
    at, near, middle = np.interp([placeholder, end, _median(bulk)], x, y).tolist()
    distance = abs(near - middle) + APART if role == "apart" else FAR
    y[x <= placeholder if is_low else x >= placeholder] += (
        middle + (-distance if is_low else distance) - at
    )
    if role == "apart":
        y -= middle
    else:
        rows = np.interp(values, x, y)
        y = (y - rows.mean()) / rows.std()
    return {"x": how["x"], "y": y.tolist(), "about": f"{how['about']}, {placeholder:g} {role}"}


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
    distinct, frequencies = np.unique(values, return_counts=True)
    below = (np.cumsum(frequencies) - frequencies / 2) / values.size
    if distinct.size <= MAX_POINTS:
        return distinct, below
    points = np.unique(np.quantile(values, FRACTIONS, method="inverted_cdf"))
    return points, below[np.searchsorted(distinct, points)]


def _are_all(values: NDArray[np.float64], points: NDArray[np.float64]) -> bool:
    return bool(np.isin(values, points).all())


def _median(values: NDArray[np.float64]) -> float:
    return float(values[(values.size - 1) // 2])


def _ends(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.quantile(values, ENDS, method="inverted_cdf")


def _is_short(values: NDArray[np.float64], *, may_crowd: bool) -> bool:
    """True where a straight line is good enough: no long tail, and no crowd at an end.

    Beside a placeholder a crowd may stay: spread out, it would drive the placeholder far away.
    """
    least, low, first, third, high, most = _ends(values).tolist()
    unit = third - first
    if not 0 < unit < math.inf or not math.isfinite(2 * _scale(values)):
        return False
    if np.unique(values).size <= MAX_POINTS:
        return False
    tails, crowds = (first - least, most - third), (low - least, most - high)
    return bool(max(tails) <= SHORT * unit and (may_crowd or min(crowds) >= CROWDED * unit))


def _scale(values: NDArray[np.float64]) -> float:
    """Of a line that makes the bulk as wide as that of a normal distribution."""
    least, most = _ends(values)[[0, -1]].tolist()
    half = most / 2 - least / 2
    return WIDTH / 2 / half if half > 0 else math.inf


def _straight(
    low: float, high: float, ends: NDArray[np.float64], is_cut: bool, is_cut_above: bool
) -> NDArray[np.float64]:
    """Between which values a line holds: as far again on both sides, or up to a placeholder.

    None are told where that is all.
    """
    with np.errstate(over="ignore"):
        length = ends[1] - ends[0]
        start, stop = ends[0] - length, ends[1] + length
    if start <= low and high <= stop:
        return np.zeros(0)
    start = ends[0] if is_cut else max(start, low)
    stop = ends[1] if is_cut_above else min(stop, high)
    return np.array([start, stop])


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
    points = _usable(xs, ys)
    y0 = min((abs(a / 2 - zero / 2), b) for a, b in points)[1]
    points = [(a, b - y0) for a, b in points]
    if len(points) == 1:
        return _line(zero, math.inf, "")
    if len(points) == 2:
        (x0, y0), (x1, y1) = points
        scale = (y1 - y0) / (x1 - x0)
        return _line(x0 if abs(y0) <= abs(y1) else x1, scale, about)
    tails = ", log tails" if above_x[1:] or below_x[1:] else ""
    return {
        "x": [point for point, _ in points],
        "y": [point for _, point in points],
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
    points = [(x[0], y[0])]
    lift = 0.0
    for b, v in zip(x[1:], y[1:], strict=True):
        a, u = points[-1]
        if math.isinf(b - a):
            points.append((a / 2 + b / 2, u / 2 + (v + lift) / 2))
            a, u = points[-1]
        width = b - a
        lift += max(1e-307 * width - (v + lift - u), 0.0)  # the inverse slope is finite
        slope = (v + lift - u) / width if width > 0 else math.inf
        if 0 < slope < math.inf:
            points.append((b, v + lift))
    return points
