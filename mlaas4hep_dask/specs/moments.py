"""Extremes and moments of numbers; NaN and infinities are counted, never summed."""

from __future__ import annotations

import math
import sys
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlaas4hep_dask.compiled import numba

LARGEST = sys.float_info.max


class Moments(NamedTuple):
    """What one array contributes to the specs of its branch.

    ``mean`` and ``squares`` (the sum of squared deviations from the mean) are taken over the
    finite values; ``min`` and ``max`` are None when there is none. A sum of squares beyond
    float64 stays at its largest number.
    """

    num_values: int
    num_nan: int
    num_posinf: int
    num_neginf: int
    min: float | None
    max: float | None
    mean: float
    squares: float

    @property
    def num_finite(self) -> int:
        """Number of values that are neither NaN nor infinite."""
        return self.num_values - self.num_nan - self.num_posinf - self.num_neginf


EMPTY = Moments(0, 0, 0, 0, None, None, 0.0, 0.0)


def to_row(moments: Moments) -> tuple[float, ...]:
    """The numbers of `Moments`, NaN in place of None."""
    low, high = (math.nan if end is None else end for end in (moments.min, moments.max))
    return (*moments[:4], low, high, *moments[6:])


def from_row(row: NDArray[np.float64]) -> Moments:
    """The moments that `to_row` gave the numbers of."""
    low, high, mean, squares = row[4:].tolist()
    num, num_nan, num_posinf, num_neginf = map(int, row[:4].tolist())
    ends = (None if math.isnan(low) else low, None if math.isnan(high) else high)
    return Moments(num, num_nan, num_posinf, num_neginf, *ends, mean, squares)


def merge_rows(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows of the moments of the values of both, shape (branches, 8)."""
    merged = a.copy()
    _add_rows(merged, b)
    return merged


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _add_rows(rows: NDArray[np.float64], others: NDArray[np.float64]) -> None:
    for row in range(rows.shape[0]):
        add_row(rows[row], others[row])


@numba.njit(nogil=True, cache=True, error_model="numpy")  # type: ignore[untyped-decorator]
def add_row(row: NDArray[np.float64], other: NDArray[np.float64]) -> None:
    """Add to a row the moments of further values.

    The pairwise update of the mean and of the squared deviations is that of Chan, Golub and
    LeVeque (1979), eq. 2.1.
    """
    # Without slices, which take numba seconds to compile.
    n_a, n_b = row[0] - row[1] - row[2] - row[3], other[0] - other[1] - other[2] - other[3]
    for column in range(4):
        row[column] += other[column]
    if n_a == 0:
        for column in range(4, 8):
            row[column] = other[column]
    elif n_b > 0:
        total = n_a + n_b
        delta = other[6] - row[6]
        mean = (n_a * row[6] + n_b * other[6]) / total
        if not math.isfinite(mean):
            mean = row[6] * (n_a / total) + other[6] * (n_b / total)
        row[4], row[5], row[6] = min(row[4], other[4]), max(row[5], other[5]), mean
        squares = row[7] + other[7] + delta * delta * (n_a / total) * n_b
        row[7] = LARGEST if squares > LARGEST else squares  # NaN stays


def merge_moments(a: Moments, b: Moments) -> Moments:
    """Moments of the values of both."""
    row = np.array(to_row(a))
    with np.errstate(all="ignore"):  # what is not finite is replaced
        add_row.py_func(row, np.array(to_row(b)))  # not worth the start of numba
    return from_row(row)
