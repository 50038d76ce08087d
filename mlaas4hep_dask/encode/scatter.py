"""Dense rows of encoded contents, and the missing mask.

A row of padding and few values is many times what it is made of: most of the time goes into
writing. So rows are built some at a time in the second-level cache, and NumPy copies them from
there: the system's copy of so many bytes does not fetch what it overwrites.

In the cache, padding comes first and values after it, collection by collection, and the first
objects of all branches before the second ones: a processor guesses how many objects an event has
once for all branches of a collection, and foresees so few places in memory. Branches one by one
take 1.2 to 1.6 times as long. Longer lists are written branch by branch, in vectors.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

TILE_BYTES = 256 * 1024  # rows that are built before they are copied, or one
LONG = 12  # objects of an event, from which on each branch's are written together


def scatter(
    values: NDArray[np.float32],
    starts: NDArray[np.int64],
    offsets: NDArray[np.int64],
    num_flat: int,
    collections: NDArray[np.int64],
    columns: NDArray[np.int64],
    rows: NDArray[np.int64],
    positions: NDArray[np.int64],
    out: NDArray[Any],
) -> None:
    """Write the dense rows of the events ``rows`` to ``out``, or those of the missing mask.

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
        Row of ``offsets`` and first column of each jagged branch, ascending. No event has more
        objects than the branch has columns.
    rows : ndarray of int64, shape (rows,)
        Events to write. Ascending rows read memory in order; random ones take far longer.
    positions : ndarray of int64, shape (rows,)
        Row of ``out`` for each. Shuffling here costs little, since a dense row is long.
    out : ndarray, shape (positions, columns)
        Receives the rows. Float32 gets the values, 0 where one is missing; uint8 gets 1 where one
        is missing, else 0.
    """
    num_columns = out.shape[1]
    together = max(TILE_BYTES // max(num_columns * out.itemsize, 1), 1)
    tile = np.empty((together, num_columns), dtype=out.dtype)
    ends = np.append(columns, num_columns)
    runs = _runs(collections, np.diff(ends))
    is_mask = out.dtype != np.float32
    are_in_line = bool((np.diff(positions) == 1).all())
    for begin in range(0, rows.size, together):
        events = rows[begin : begin + together]
        block = tile[: events.size]
        block[:] = is_mask
        _fill(values, starts, offsets, num_flat, collections, ends, runs, events, is_mask, block)
        first = positions[begin]
        end = begin + events.size
        places = slice(first, first + events.size) if are_in_line else positions[begin:end]
        out[places] = block


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]  # numba is not annotated
def _fill(
    values: NDArray[np.float32],
    starts: NDArray[np.int64],
    offsets: NDArray[np.int64],
    num_flat: int,
    collections: NDArray[np.int64],
    ends: NDArray[np.int64],
    runs: NDArray[np.int64],
    events: NDArray[np.int64],
    is_mask: bool,
    block: NDArray[Any],
) -> None:
    """Write what there is of ``events`` to their rows, which hold what stands for missing."""
    num_columns = block.shape[1]
    cells = block.ravel()
    for branch in range(num_flat):
        for i in range(events.size):
            _put(values, starts[branch] + events[i], is_mask, cells, i * num_columns + branch)
    for run in range(runs.size - 1):
        branch, stop = runs[run], runs[run + 1]
        collection, width = collections[branch], ends[branch + 1] - ends[branch]
        begins = starts[num_flat + branch : num_flat + stop]
        for i in range(events.size):
            first = offsets[collection, events[i]]
            count = offsets[collection, events[i] + 1] - first
            column = i * num_columns + ends[branch]
            if count > LONG:
                for k in range(begins.size):
                    place, cell = begins[k] + first, column + k * width
                    for number in range(count):
                        _put(values, place + number, is_mask, cells, cell + number)
            else:
                for number in range(count):
                    for k in range(begins.size):
                        place, cell = begins[k] + first + number, column + k * width + number
                        _put(values, place, is_mask, cells, cell)


@numba.njit(nogil=True, cache=True, inline="always")  # type: ignore[untyped-decorator]
def _put(
    values: NDArray[np.float32], place: int, is_mask: bool, cells: NDArray[Any], cell: int
) -> None:
    value = values[np.uint64(place)]  # unsigned: none is negative
    if is_mask:
        cells[np.uint64(cell)] = np.isnan(value)
    else:
        cells[np.uint64(cell)] = np.float32(0) if np.isnan(value) else value


def _runs(collections: NDArray[np.int64], widths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each run of branches of one collection and width begins, and where the last ends."""
    is_new = (np.diff(collections) != 0) | (np.diff(widths) != 0)
    inner = np.flatnonzero(is_new).astype(np.int64) + 1
    return np.unique(np.concatenate([[0], inner, [collections.size]]))
