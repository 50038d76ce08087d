"""Extremes and moments of numbers; NaN and infinities are counted, never summed."""

from __future__ import annotations

import math
import sys
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

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
    """Rows of the moments of the values of both, shape (branches, 8).

    The pairwise update of the mean and of the squared deviations is that of Chan, Golub and
    LeVeque (1979), eq. 2.1.
    """
    merged = np.empty_like(a)
    merged[:, :4] = a[:, :4] + b[:, :4]
    merged[:, 4], merged[:, 5] = np.fmin(a[:, 4], b[:, 4]), np.fmax(a[:, 5], b[:, 5])
    n_a, n_b = (each[:, 0] - each[:, 1:4].sum(axis=1) for each in (a, b))
    with np.errstate(all="ignore"):  # what is not finite is replaced
        total = n_a + n_b
        delta = b[:, 6] - a[:, 6]
        mean = (n_a * a[:, 6] + n_b * b[:, 6]) / total
        other = a[:, 6] * (n_a / total) + b[:, 6] * (n_b / total)
        squares = a[:, 7] + b[:, 7] + delta * delta * (n_a / total) * n_b
    mean = np.where(np.isfinite(mean), mean, other)
    squares = np.minimum(squares, LARGEST)
    for column, both in ((6, mean), (7, squares)):
        merged[:, column] = np.where(n_a == 0, b[:, column], np.where(n_b == 0, a[:, column], both))
    return merged


def merge_moments(a: Moments, b: Moments) -> Moments:
    """Moments of the values of both."""
    return from_row(merge_rows(np.array([to_row(a)]), np.array([to_row(b)]))[0])
