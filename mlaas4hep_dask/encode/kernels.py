"""Compiled loops of the encode room; arrays in, arrays out."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlaas4hep_dask.compiled import numba
from mlaas4hep_dask.specs.transforms import logarithm

LARGEST = sys.float_info.max
TILE_BYTES = 320 * 1024  # rows that stay in the second-level cache while every branch visits them


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
    # What is not finite lies outside too.
    least, most = max(low, -LARGEST), min(high, LARGEST)
    num_outside = 0
    for i in range(values.size):
        value: Any = np.float64(values[i])
        num_outside += 0 if least <= value <= most else 1
        out[i] = np.float32((value - shift) * scale)
    if num_outside == 0:  # nearly always, and known in half the time
        return 0, 0
    num_missing = 0
    num_outside = 0
    for i in range(values.size):
        value = np.float64(values[i])
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
def normalise_log(
    values: NDArray[Any],
    is_signed: bool,
    shift: float,
    scale: float,
    low: float,
    high: float,
    clip: bool,
    out: NDArray[np.float32],
) -> tuple[int, int]:
    """As `normalise`, of the logarithm; of sign(v) log(1 + abs(v)) when ``is_signed``.

    Without a sign, values that are not above 0 become NaN, and are counted as such alone.
    """
    num_missing = 0
    num_outside = 0
    for i in range(values.size):
        value: Any = np.float64(values[i])
        if not (abs(value) < np.inf and (is_signed or value > 0)):
            num_missing += 1
            out[i] = np.float32(np.nan)
            continue
        if value < low or value > high:
            num_outside += 1
            if clip:
                value = low if value < low else high
        out[i] = np.float32((logarithm(value, is_signed) - shift) * scale)
    return num_missing, num_outside


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def normalise_table(
    values: NDArray[Any],
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    slopes: NDArray[np.float64],
    low: float,
    high: float,
    clip: bool,
    out: NDArray[np.float32],
) -> tuple[int, int]:
    """As `normalise`, of a piecewise linear function through the points (x, y)."""
    num_missing = 0
    num_outside = 0
    for i in range(values.size):
        value: Any = np.float64(values[i])
        if not abs(value) < np.inf:
            num_missing += 1
            out[i] = np.float32(np.nan)
            continue
        if value < low or value > high:
            num_outside += 1
            if clip:
                value = low if value < low else high
        first, last = 0, x.size - 1
        while last - first > 1:  # x[first] <= value < x[last], but for the end pieces
            middle = (first + last) // 2
            if value < x[middle]:
                last = middle
            else:
                first = middle
        out[i] = np.float32(y[first] + (value - x[first]) * slopes[first])
    return num_missing, num_outside


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def kept_objects(
    offsets: NDArray[np.int64], width: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Offsets of the first ``width`` objects of each event, and where these objects stand."""
    kept_offsets = np.zeros_like(offsets)
    for event in range(offsets.size - 1):
        count = min(offsets[event + 1] - offsets[event], width)
        kept_offsets[event + 1] = kept_offsets[event] + count
    kept = np.empty(kept_offsets[-1], dtype=np.int64)
    for event in range(offsets.size - 1):
        for j in range(kept_offsets[event + 1] - kept_offsets[event]):
            kept[kept_offsets[event] + j] = offsets[event] + j
    return kept_offsets, kept


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def scatter(
    values: NDArray[np.float32],
    starts: NDArray[np.int64],
    offsets: NDArray[np.int64],
    num_flat: int,
    collections: NDArray[np.int64],
    columns: NDArray[np.int64],
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
    collections, columns : ndarray of int64, shape (jagged branches,)
        Row of ``offsets`` and first column of each jagged branch. No event has more objects than
        the branch has columns.
    rows : ndarray of int64, shape (rows,)
        Events to write. Ascending rows read memory in order; random ones take six times as long.
    positions : ndarray of int64, shape (rows,)
        Row of ``out`` for each. Shuffling here costs little, since a dense row is long.
    out : ndarray of float32, shape (positions, columns)
        Receives the rows.
    """
    num_jagged = collections.size
    tile = _tile(out)
    for begin in range(0, rows.size, tile):
        end = min(begin + tile, rows.size)
        for i in range(begin, end):
            out[positions[i], num_flat:] = np.float32(0.0)
            for column in range(num_flat):
                _copy(values, np.uint64(starts[column] + rows[i]), out, positions[i], column, 0)
        # Branches of a collection go together: each event has one multiplicity for all of them,
        # so that the processor guesses the way through the copies right but for the first.
        branch = 0
        while branch < num_jagged:
            collection = collections[branch]
            stop = branch + 1
            while stop < num_jagged and collections[stop] == collection:
                stop += 1
            for i in range(begin, end):
                first = offsets[collection, rows[i]]
                count = offsets[collection, rows[i] + 1] - first
                for own in range(branch, stop):
                    source = np.uint64(starts[num_flat + own] + first)
                    column = columns[own]
                    if count > 4:
                        for j in range(count):
                            _copy(values, source, out, positions[i], column, j)
                        continue
                    if count > 0:
                        _copy(values, source, out, positions[i], column, 0)
                    if count > 1:
                        _copy(values, source, out, positions[i], column, 1)
                    if count > 2:
                        _copy(values, source, out, positions[i], column, 2)
                    if count > 3:
                        _copy(values, source, out, positions[i], column, 3)
            branch = stop


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _tile(out: NDArray[Any]) -> int:
    """Number of rows that are written together."""
    num_rows: int = TILE_BYTES // (max(out.shape[1], 1) * out.itemsize)
    return max(num_rows, 16)


# Unsigned places: numba asks of a signed one whether it counts from the end.
@numba.njit(nogil=True, cache=True, inline="always")  # type: ignore[untyped-decorator]
def _copy(
    values: NDArray[np.float32],
    source: np.uint64,
    out: NDArray[np.float32],
    row: int,
    column: int,
    number: int,
) -> None:
    value = values[source + np.uint64(number)]
    out[np.uint64(row), np.uint64(column + number)] = value if value == value else np.float32(0.0)


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def scatter_missing(
    values: NDArray[np.float32],
    starts: NDArray[np.int64],
    offsets: NDArray[np.int64],
    num_flat: int,
    collections: NDArray[np.int64],
    columns: NDArray[np.int64],
    rows: NDArray[np.int64],
    positions: NDArray[np.int64],
    out: NDArray[np.bool_],
) -> None:
    """Write the missing mask of the events ``rows`` to ``out``; see `scatter`."""
    tile = _tile(out)
    for begin in range(0, rows.size, tile):
        end = min(begin + tile, rows.size)
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
            for i in range(begin, end):
                first = offsets[collection, rows[i]]
                count = offsets[collection, rows[i] + 1] - first
                first += start
                for j in range(count):
                    value = values[first + j]
                    out[positions[i], column + j] = value != value
