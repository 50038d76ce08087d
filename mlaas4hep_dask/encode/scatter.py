"""Dense rows of encoded contents, and the missing mask.

A row of padding and few values is many times what it is made of: most of the time goes into
writing. So rows are built some at a time in the second-level cache, and NumPy copies them from
there: the system's copy of so many bytes does not fetch what it overwrites.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from mlaas4hep_dask.encode.pad import LANES, pad

AHEAD = 32  # rows: their values are asked for while others are written
TILE_BYTES = 512 * 1024  # rows that are built before they are copied, or one


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
    tile = np.empty(together * num_columns + LANES, dtype=out.dtype)
    block = tile[:-LANES].reshape(together, num_columns)
    ends = np.append(columns, num_columns)
    runs = _runs(collections, np.diff(ends))
    is_mask = out.dtype != np.float32
    are_in_line = bool((np.diff(positions) == 1).all())
    for begin in range(0, rows.size, together):
        end = min(begin + together, rows.size)
        _build(
            values,
            starts,
            offsets,
            num_flat,
            collections,
            ends,
            runs,
            rows,
            begin,
            end,
            is_mask,
            tile,
        )
        first = positions[begin]
        places = slice(first, first + end - begin) if are_in_line else positions[begin:end]
        out[places] = block[: end - begin]


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]  # numba is not annotated
def _build(
    values: NDArray[np.float32],
    starts: NDArray[np.int64],
    offsets: NDArray[np.int64],
    num_flat: int,
    collections: NDArray[np.int64],
    ends: NDArray[np.int64],
    runs: NDArray[np.int64],
    rows: NDArray[np.int64],
    begin: int,
    end: int,
    is_mask: bool,
    tile: NDArray[Any],
) -> None:
    """Write the rows of the events ``rows[begin:end]`` to ``tile``, one after the other."""
    num_columns = ends[-1]
    # Views of arrays are counted by locked instructions, which wait for all stores: none below.
    for i in range(begin, end):
        event, later = rows[i], rows[min(i + AHEAD, rows.size - 1)]
        base = (i - begin) * num_columns
        for run in range(runs.size - 1):
            branch, stop = runs[run], runs[run + 1]
            collection, column = collections[branch], base + ends[branch]
            first, soon = offsets[collection, event], offsets[collection, later]
            count, width = offsets[collection, event + 1] - first, ends[branch + 1] - ends[branch]
            row = num_flat + branch
            # The last branch of a run begins last in memory, too.
            if starts[num_flat + stop - 1] + first + width + LANES <= values.size:
                pad(values, starts, row, stop - branch, first, count, soon, tile, column, width)
                continue
            for place in range(width * (stop - branch)):  # vectors would leave the values
                other, number = row + place // width, place % width
                value = np.float32(np.nan)
                if number < count:
                    value = values[starts[other] + first + number]
                if is_mask:
                    tile[column + place] = np.isnan(value)
                else:
                    tile[column + place] = np.float32(0) if np.isnan(value) else value
    # After the jagged ones: their last vectors reach into the next row.
    for branch in range(num_flat):
        start = starts[branch]
        for i in range(begin, end):
            entry = np.uint64((i - begin) * num_columns + branch)
            value = values[np.uint64(start + rows[i])]  # unsigned: none is negative
            if is_mask:
                tile[entry] = np.isnan(value)
            else:
                tile[entry] = np.float32(0) if np.isnan(value) else value


def _runs(collections: NDArray[np.int64], widths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each run of branches of one collection and width begins, and where the last ends."""
    is_new = (np.diff(collections) != 0) | (np.diff(widths) != 0)
    inner = np.flatnonzero(is_new).astype(np.int64) + 1
    return np.unique(np.concatenate([[0], inner, [collections.size]]))
