"""Compiled loops of the encode room; arrays in, arrays out."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

TILE = 128  # events; a tile's rows stay in the second-level cache while every branch visits them


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]  # numba is not annotated
def normalise(
    values: NDArray[Any],
    shift: float,
    scale: float,
    low: float,
    high: float,
    clip: bool,
    out: NDArray[np.float32],
) -> tuple[int, int]:
    """Write ``(values - shift) * scale`` to ``out``, NaN for what is not finite.

    The arithmetic is float64 with one rounding at the end, so that large integers keep their
    differences. Values outside [low, high] are counted and, with ``clip``, moved to the nearer
    bound first.

    Returns
    -------
    tuple of int
        Number of values that became NaN, and number outside [low, high].
    """
    num_missing = 0
    num_outside = 0
    for i in range(values.size):
        value: Any = np.float64(values[i])
        finite = abs(value) < np.inf  # False for NaN too
        below = finite and value < low
        above = finite and value > high
        num_missing += 0 if finite else 1
        num_outside += 1 if below or above else 0
        if clip:
            value = low if below else (high if above else value)
        out[i] = np.float32((value - shift) * scale) if finite else np.float32(np.nan)
    return num_missing, num_outside


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def scatter(
    values: NDArray[np.float32],
    starts: NDArray[np.int64],
    offsets: NDArray[np.int64],
    num_flat: int,
    collections: NDArray[np.int64],
    columns: NDArray[np.int64],
    widths: NDArray[np.int64],
    rows: NDArray[np.int64],
    positions: NDArray[np.int64],
    out: NDArray[np.float32],
) -> None:
    """Write the dense rows of the events ``rows`` to ``out``, 0 where a value is missing.

    Parameters
    ----------
    values : ndarray of float32, shape (values,)
        Encoded contents of all branches, one branch after the other, flat ones first.
    starts : ndarray of int64, shape (branches,)
        Where each branch's contents begin in ``values``.
    offsets : ndarray of int64, shape (collections, events + 1)
        Where each event's objects begin within a branch's contents.
    num_flat : int
        Number of flat branches; they fill the first columns.
    collections, columns, widths : ndarray of int64, shape (jagged branches,)
        Row of ``offsets``, first column and number of columns of each jagged branch.
    rows : ndarray of int64, shape (rows,)
        Events to write. Ascending rows read memory in order; random ones take six times as long.
    positions : ndarray of int64, shape (rows,)
        Row of ``out`` for each. Shuffling here costs little, since a dense row is long.
    out : ndarray of float32, shape (positions, columns)
        Receives the rows.
    """
    zero = np.float32(0.0)
    for begin in range(0, rows.size, TILE):
        end = min(begin + TILE, rows.size)
        for i in range(begin, end):
            out[positions[i]] = zero
        for column in range(num_flat):
            start = starts[column]
            for i in range(begin, end):
                value = values[start + rows[i]]
                out[positions[i], column] = value if value == value else zero
        for branch in range(collections.size):
            start = starts[num_flat + branch]
            collection = collections[branch]
            column = columns[branch]
            width = widths[branch]
            for i in range(begin, end):
                first = offsets[collection, rows[i]]
                count = min(offsets[collection, rows[i] + 1] - first, width)
                first += start
                for j in range(count):
                    value = values[first + j]
                    out[positions[i], column + j] = value if value == value else zero


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def scatter_missing(
    values: NDArray[np.float32],
    starts: NDArray[np.int64],
    offsets: NDArray[np.int64],
    num_flat: int,
    collections: NDArray[np.int64],
    columns: NDArray[np.int64],
    widths: NDArray[np.int64],
    rows: NDArray[np.int64],
    positions: NDArray[np.int64],
    out: NDArray[np.bool_],
) -> None:
    """Write the missing mask of the events ``rows`` to ``out``; see `scatter`."""
    for begin in range(0, rows.size, TILE):
        end = min(begin + TILE, rows.size)
        for i in range(begin, end):
            out[positions[i]] = True
        for column in range(num_flat):
            start = starts[column]
            for i in range(begin, end):
                value = values[start + rows[i]]
                out[positions[i], column] = value != value
        for branch in range(collections.size):
            start = starts[num_flat + branch]
            collection = collections[branch]
            column = columns[branch]
            width = widths[branch]
            for i in range(begin, end):
                first = offsets[collection, rows[i]]
                count = min(offsets[collection, rows[i] + 1] - first, width)
                first += start
                for j in range(count):
                    value = values[first + j]
                    out[positions[i], column + j] = value != value
