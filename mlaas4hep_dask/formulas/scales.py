"""Scales, by name: each is one function here, of what was measured of a branch.

It takes the moments of the values, or of a function of them, and what gives their quartiles. It
gives the shift and the spread: a value becomes ``(value - shift) / spread``. A spread of 0 counts
as 1, and values that are all alike become 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol


class Measured(Protocol):
    """The moments of at least one finite value."""

    @property
    def mean(self) -> float:
        """Of the finite values."""

    @property
    def squares(self) -> float:
        """The sum of their squared distances from the mean."""

    @property
    def num_finite(self) -> int:
        """How many they are."""


Quartiles = Callable[[], Sequence[float]]
Scale = Callable[[float, float, Measured, Quartiles], tuple[float, float]]


def minmax(low: float, high: float, moments: Measured, quartiles: Quartiles) -> tuple[float, float]:
    """The extremes become 0 and 1 (Kuznetsov, Giommi, Bonacorsi, Comput. Softw. Big Sci. 2021)."""
    del moments, quartiles
    return low, high - low


def standard(
    low: float, high: float, moments: Measured, quartiles: Quartiles
) -> tuple[float, float]:
    """The mean becomes 0, one standard deviation from it 1."""
    del quartiles
    # Nine digits: means differ in the last bits with the order of merging, and blocks must be
    # equal whatever the partition size. Extremes and quantiles are exact.
    spread = float(f"{(moments.squares / moments.num_finite) ** 0.5:.9g}")
    # squares of tiny values are 0
    return low + float(f"{moments.mean - low:.9g}"), spread or high - low


def robust(low: float, high: float, moments: Measured, quartiles: Quartiles) -> tuple[float, float]:
    """The median becomes 0, the distance of the quartiles 1."""
    del low, high, moments
    first, median, third = quartiles()
    return median, third - first


def unscaled(
    low: float, high: float, moments: Measured, quartiles: Quartiles
) -> tuple[float, float]:
    """Values stay as they are."""
    del low, high, moments, quartiles
    return 0.0, 1.0


SCALES: dict[str, Scale] = {
    "minmax": minmax,
    "standard": standard,
    "robust": robust,
    "none": unscaled,
}
