"""Extremes and moments of numbers; NaN and infinities are counted, never summed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self

import numba
import numpy as np
from numpy.typing import NDArray

from mlaas4hep_dask.specs.exact import LARGEST, Sums, from_text, sums_of, to_text


class Moments(NamedTuple):
    """What one array contributes to the specs of its branch.

    ``mean`` and ``squares`` (the sum of squared deviations from the mean) are taken over the
    finite values; ``min`` and ``max`` are None when there is none. A sum of squares beyond
    float64 stays at its largest number. ``sums`` are those that mean and squares were rounded
    from when parts were merged; None where these are the sums themselves.
    """

    num_values: int
    num_nan: int
    num_posinf: int
    num_neginf: int
    min: float | None
    max: float | None
    mean: float
    squares: float
    sums: Sums | None = None

    @property
    def num_finite(self) -> int:
        """Number of values that are neither NaN nor infinite."""
        return self.num_values - self.num_nan - self.num_posinf - self.num_neginf

    @property
    def exact(self) -> Sums:
        """The sums that moments of other values can be added to."""
        return self.sums or sums_of(self.num_finite, self.mean, self.squares)

    def as_json(self) -> dict[str, Any]:
        """All of it as JSON values."""
        record = self._asdict()
        sums = record.pop("sums")
        return record if sums is None else {**record, "sums": [to_text(each) for each in sums]}

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> Self:
        """What `as_json` gave.

        Raises
        ------
        KeyError, TypeError, ValueError
            When it is something else.
        """
        sums = entry.get("sums")
        exact = None if sums is None else Sums(*map(from_text, sums))
        return cls(**{key: entry[key] for key in cls._fields[:-1]}, sums=exact)


EMPTY = Moments(0, 0, 0, 0, None, None, 0.0, 0.0)


def to_row(moments: Moments) -> tuple[float, ...]:
    """The numbers of `Moments`, NaN in place of None."""
    low, high = (math.nan if end is None else end for end in (moments.min, moments.max))
    return (*moments[:4], low, high, *moments[6:8])


def from_row(row: NDArray[np.float64], sums: Sums | None = None) -> Moments:
    """The moments that `to_row` gave the numbers of; mean and squares are those of ``sums``."""
    low, high, mean, squares = row[4:].tolist()
    num, num_nan, num_posinf, num_neginf = map(int, row[:4].tolist())
    ends = (None if math.isnan(low) else low, None if math.isnan(high) else high)
    if sums is not None:
        mean, squares = sums.mean_and_squares(num - num_nan - num_posinf - num_neginf)
    return Moments(num, num_nan, num_posinf, num_neginf, *ends, mean, squares, sums)


def merge_rows(
    parts: Sequence[NDArray[np.float64]], sums: Sequence[Sequence[Sums | None]]
) -> tuple[NDArray[np.float64], list[Sums | None]]:
    """Rows of the moments of the values of all parts, shape (branches, 8), and their sums.

    Where a row has sums, mean and squares are to be taken from these: the merged ones are the
    same in whatever order parts are merged, and whatever was merged before.

    Parameters
    ----------
    parts : sequence of ndarray of float64, shape (branches, 8)
        Rows of each part.
    sums : sequence of sequence of Sums or None
        Those of each part.
    """
    numbers = np.stack(parts)  # (parts, branches, 8)
    merged = np.empty_like(parts[0])
    merged[:, :4] = numbers[:, :, :4].sum(axis=0)
    merged[:, 4] = np.fmin.reduce(numbers[:, :, 4], axis=0)  # NaN where a part has no value
    merged[:, 5] = np.fmax.reduce(numbers[:, :, 5], axis=0)
    merged[:, 6:] = 0.0
    finite = (numbers[:, :, 0] - numbers[:, :, 1:4].sum(axis=2)).astype(np.int64)
    sizes, means, squares = (
        column.T.tolist() for column in (finite, numbers[:, :, 6], numbers[:, :, 7])
    )
    exact: list[Sums | None] = []
    for row, column in enumerate(zip(sizes, means, squares, zip(*sums, strict=True), strict=True)):
        filled = [part for part in zip(*column, strict=True) if part[0]]
        if len(filled) == 1:
            _, *merged[row, 6:], total = filled[0]
        elif filled:
            each = [exact_sums or sums_of(*rest) for *rest, exact_sums in filled]
            total = Sums(sum(one.first for one in each), sum(one.second for one in each))
        else:
            total = None
        exact.append(total)
    return merged, exact


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
    rows, sums = merge_rows([np.array([to_row(a)]), np.array([to_row(b)])], [[a.sums], [b.sums]])
    return from_row(rows[0], sums[0])
