"""Measures the values of baskets while a cache holds them.

Extremes and sums take a fifth of the time there that they take when all values of a partition are
fetched from memory for them.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from mlaas4hep_dask.specs.meter import Watch
from mlaas4hep_dask.specs.moments import add_row

LANES = 512  # partial sums, far more than any vector has: their order is the same everywhere
_LEAST = 1e-3  # of the sum of squares: squared deviations from the mean that have lost few digits


def note(values: NDArray[Any], first: int, watch: Watch) -> None:
    """Note what is seen of some values of a branch.

    Parameters
    ----------
    values : ndarray, shape (values,)
        Of the dtype that is drawn, in native byte order and aligned.
    first : int
        Where the first of them stands among all values of the branch.
    watch : Watch
        What was seen so far.
    """
    if values.size:
        _note(values, first, *watch)


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]  # numba is not annotated
def _note(
    values: NDArray[Any],
    first: int,
    row_of_branch: int,
    numbers: NDArray[np.float64],
    places: NDArray[np.intp],
    draws: NDArray[Any],
) -> None:
    begin, end = _first_from(places, first), _first_from(places, first + values.size)
    for i in range(begin, end):
        draws[row_of_branch, i] = values[np.uint64(places[i] - first)]  # unsigned: none is negative
    low, high, total, squares = _sums(values)
    mean = total / values.size
    spread = squares - mean * mean * values.size
    row = np.zeros(8)
    row[0], row[4], row[5], row[6] = values.size, low + 0.0, high + 0.0, mean  # not -0.0
    row[7] = spread
    if not _LEAST * squares <= spread < math.inf:
        _measure(values, row)
    add_row(numbers[row_of_branch], row)


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _first_from(places: NDArray[np.intp], least: int) -> int:
    """Where the first of the ascending places that is not less stands."""
    low, high = 0, places.size
    while low < high:
        middle = (low + high) // 2
        if places[middle] < least:
            low = middle + 1
        else:
            high = middle
    return low


# The compiler makes vectors of neighbouring lanes. Fused instructions are all that it may change.
@numba.njit(nogil=True, cache=True, fastmath={"contract"})  # type: ignore[untyped-decorator]
def _sums(values: NDArray[Any]) -> tuple[float, float, float, float]:
    """Extremes, sum and sum of squares; the sums are not finite unless all values are."""
    low, high = np.full(LANES, values[0]), np.full(LANES, values[0])
    total, squares = np.zeros(LANES), np.zeros(LANES)
    fours = values.size - values.size % (4 * LANES)
    for begin in range(0, fours, 4 * LANES):  # lanes are fetched once for four rows
        rows = values[begin : begin + 4 * LANES].reshape(4, LANES)
        a, b, c, d = rows[0], rows[1], rows[2], rows[3]
        for i in range(LANES):
            low[i] = min(low[i], min(min(a[i], b[i]), min(c[i], d[i])))
            high[i] = max(high[i], max(max(a[i], b[i]), max(c[i], d[i])))
        for i in range(LANES):
            p, q, r, s = np.float64(a[i]), np.float64(b[i]), np.float64(c[i]), np.float64(d[i])
            total[i] += (p + q) + (r + s)
            squares[i] += (p * p + q * q) + (r * r + s * s)
    for begin in range(fours, values.size, LANES):
        row = values[begin : begin + LANES]
        for i in range(row.size):
            low[i], high[i] = min(low[i], row[i]), max(high[i], row[i])
            number = np.float64(row[i])
            total[i] += number
            squares[i] += number * number
    half = LANES // 2
    while half > 0:
        for i in range(half):
            low[i], high[i] = min(low[i], low[half + i]), max(high[i], high[half + i])
            total[i] += total[half + i]
            squares[i] += squares[half + i]
        half //= 2
    return np.float64(low[0]), np.float64(high[0]), total[0], squares[0]


# No flag lets LLVM assume that there are no NaN or infinities. Nothing branches on a value: which
# of them are finite is not to be guessed.
@numba.njit(nogil=True, cache=True, fastmath={"contract", "reassoc", "nsz"})  # type: ignore[untyped-decorator]
def _measure(values: NDArray[Any], row: NDArray[np.float64]) -> None:
    """Moments of values that are not finite, or so close together that sums have lost digits."""
    pivot = math.nan
    for i in range(values.size):
        pivot = np.float64(values[i])
        if math.isfinite(pivot):
            break
    low = high = pivot
    total = 0.0
    num_finite = num_nan = num_posinf = 0
    for i in range(values.size):
        number = np.float64(values[i])
        is_finite = math.isfinite(number)
        value = number if is_finite else pivot
        num_finite += is_finite
        num_nan += math.isnan(number)
        num_posinf += number == math.inf
        total += value - pivot
        low = value if value < low else low
        high = value if value > high else high
    row[1], row[2] = num_nan, num_posinf
    row[3] = values.size - num_finite - num_nan - num_posinf
    row[6] = row[7] = 0.0
    if num_finite == 0:
        row[4] = row[5] = math.nan
        return
    mean = pivot + total / num_finite
    squares = 0.0
    for i in range(values.size):
        number = np.float64(values[i])
        deviation = number - mean if math.isfinite(number) else 0.0
        squares += deviation * deviation
    # Beyond float64, such as for sentinels at its end: NaN, for others to see to.
    row[4], row[5], row[6] = low + 0.0, high + 0.0, mean
    row[7] = squares if math.isfinite(squares) else math.nan
