"""Extremes and moments of numbers; NaN and infinities are counted, never summed."""

from __future__ import annotations

import math
import sys
from typing import NamedTuple

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


def merge_moments(a: Moments, b: Moments) -> Moments:
    """Moments of the values of both.

    The pairwise update of the mean and of the squared deviations is that of Chan, Golub and
    LeVeque (1979), eq. 2.1.
    """
    n_a, n_b = a.num_finite, b.num_finite
    if n_a == 0 or n_b == 0:
        mean, squares = (b.mean, b.squares) if n_a == 0 else (a.mean, a.squares)
    else:
        total = n_a + n_b
        delta = b.mean - a.mean
        mean = (n_a * a.mean + n_b * b.mean) / total
        if not math.isfinite(mean):
            mean = a.mean * (n_a / total) + b.mean * (n_b / total)
        squares = min(a.squares + b.squares + delta * delta * (n_a / total) * n_b, LARGEST)
    lows = [low for low in (a.min, b.min) if low is not None]
    highs = [high for high in (a.max, b.max) if high is not None]
    return Moments(
        a.num_values + b.num_values,
        a.num_nan + b.num_nan,
        a.num_posinf + b.num_posinf,
        a.num_neginf + b.num_neginf,
        min(lows) if lows else None,
        max(highs) if highs else None,
        mean,
        squares,
    )
