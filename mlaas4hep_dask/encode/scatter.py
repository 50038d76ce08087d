"""Dense rows of encoded contents, and the missing mask.

A row of padding and few values is many times what it is made of: most of the time goes into
writing. So rows are built some at a time in the second-level cache. Those that follow one another
are built in a tile that stays there, and NumPy copies them from it: the system's copy of so many
bytes does not fetch what it overwrites. Of rows here and there it copies few bytes at once, and
would fetch them: they are built where they belong, which takes 0.8 of the time.

In the cache, padding comes first and values after it, collection by collection, and the first
objects of all branches before the second ones: a processor guesses how many objects an event has
once for all branches of a collection, and foresees so few places in memory. Branches one by one
take 1.2 to 1.6 times as long. Longer lists are written branch by branch, in vectors.
"""

from __future__ import annotations

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
    x: NDArray[np.float32] | None,
    missing: NDArray[np.uint8] | None,
) -> None:
    """Write the dense rows of some events to ``x``, and their mask to ``missing``, if there.

    Both together take three quarters of the time of one after the other: what takes longest is to
    fetch values, and to foresee how many objects there are.

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
        Row of ``x`` and ``missing`` for each. Shuffling here costs little: a dense row is long.
    x : ndarray of float32, shape (positions, columns), optional
        Receives values, 0 where one is missing.
    missing : ndarray of uint8, shape (positions, columns), optional
        Receives 1 where a value is missing, else 0. One of the two is there.
    """
    outs = [out for out in (x, missing) if out is not None]
    num_columns = outs[0].shape[1]
    together = max(TILE_BYTES // max(sum(num_columns * out.itemsize for out in outs), 1), 1)
    ends = np.append(columns, num_columns)
    encoded = (
        values,
        starts,
        offsets,
        num_flat,
        collections,
        ends,
        _runs(collections, np.diff(ends)),
    )
    are_in_line = bool((np.diff(positions) == 1).all())
    built = [np.empty((together, num_columns), o.dtype) for o in outs] if are_in_line else outs
    x_cells = None if x is None else built[0].reshape(-1)
    missing_cells = None if missing is None else built[-1].reshape(-1)
    for begin in range(0, rows.size, together):
        events, places = rows[begin : begin + together], positions[begin : begin + together]
        if not are_in_line:
            _fill(*encoded, events, places, x_cells, missing_cells)
            continue
        _fill(*encoded, events, np.arange(events.size), x_cells, missing_cells)
        for tile, out in zip(built, outs, strict=True):
            out[places[0] : places[0] + events.size] = tile[: events.size]


# What is None is left out when this is compiled.
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
    places: NDArray[np.int64],
    x: NDArray[np.float32] | None,
    missing: NDArray[np.uint8] | None,
) -> None:
    """Write what there is of ``events`` to the rows ``places``."""
    num_columns = ends[-1]
    for i in range(events.size):
        begin, end = places[i] * num_columns, (places[i] + 1) * num_columns
        if x is not None:
            x[begin:end] = 0
        if missing is not None:
            missing[begin:end] = 1
    for branch in range(num_flat):
        for i in range(events.size):
            _put(values, starts[branch] + events[i], x, missing, places[i] * num_columns + branch)
    for run in range(runs.size - 1):
        branch, stop = runs[run], runs[run + 1]
        collection, width = collections[branch], ends[branch + 1] - ends[branch]
        begins = starts[num_flat + branch : num_flat + stop]
        for i in range(events.size):
            first = offsets[collection, events[i]]
            count = offsets[collection, events[i] + 1] - first
            column = places[i] * num_columns + ends[branch]
            if count > LONG:
                for k in range(begins.size):
                    place, cell = begins[k] + first, column + k * width
                    for number in range(count):
                        _put(values, place + number, x, missing, cell + number)
            else:
                for number in range(count):
                    for k in range(begins.size):
                        place, cell = begins[k] + first + number, column + k * width + number
                        _put(values, place, x, missing, cell)


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _put(
    values: NDArray[np.float32],
    place: int,
    x: NDArray[np.float32] | None,
    missing: NDArray[np.uint8] | None,
    cell: int,
) -> None:
    """Write a value to a cell of the rows that follow one another, and whether it is missing."""
    value = values[np.uint64(place)]  # unsigned: none is negative
    if x is not None:
        x[np.uint64(cell)] = np.float32(0) if np.isnan(value) else value
    if missing is not None:
        missing[np.uint64(cell)] = np.isnan(value)


def _runs(collections: NDArray[np.int64], widths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each run of branches of one collection and width begins, and where the last ends."""
    is_new = (np.diff(collections) != 0) | (np.diff(widths) != 0)
    inner = np.flatnonzero(is_new).astype(np.int64) + 1
    return np.unique(np.concatenate([[0], inner, [collections.size]]))
