"""Dense rows of encoded contents, and the missing mask.

A row of padding and few values is many times what it is made of: most of the time goes into
writing. So a row is built in the first-level cache, where every branch writes all of its columns
at once, values and padding alike, with no guess of how many objects an event has; and it is stored
past the other caches when all rows together are larger than these.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numpy.typing import NDArray

from mlaas4hep_dask.compiled import numba
from mlaas4hep_dask.vectors import LINE, fence, pointer, prefetch, store_past_caches

LANES = 8  # values of a vector
AHEAD = 16  # rows: their values are asked for while others are written
PAST_CACHES = 4 * 1024 * 1024  # bytes of dense rows that no second-level cache holds
TILE_BYTES = 320 * 1024  # masks that stay in the second-level cache while every branch visits them
_VECTOR = ir.VectorType(ir.FloatType(), LANES)


@numba.extending.intrinsic  # type: ignore[untyped-decorator]  # numba is not annotated
def _ask_for(_: Any, values: Any, place: Any) -> Any:
    """Ask for ``values[place]``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        begin = pointer(context, builder, signature.args[0], arguments[0], ir.FloatType())
        prefetch(builder, builder.gep(begin, [arguments[1]]), level=2)
        return context.get_dummy_value()

    return numba.types.void(values, place), generate


@numba.extending.intrinsic  # type: ignore[untyped-decorator]
def _pad(
    _: Any,
    values: Any,
    starts: Any,
    own: Any,
    num_branches: Any,
    first: Any,
    count: Any,
    later: Any,
    row: Any,
    column: Any,
    width: Any,
) -> Any:
    """Write branches of a collection to columns of ``row``, each to ``width`` from ``column``.

    The branches are ``num_branches`` from the number ``own``. Each has ``count`` values, from
    ``starts[branch] + first``; 0 takes the place of NaN and of those that are missing. The values
    from ``starts[branch] + later`` are asked for. Vectors reach beyond values and columns, by less
    than `LANES`.
    """
    number, small = ir.IntType(64), ir.IntType(32)
    many = ir.VectorType(small, LANES)
    lanes = ir.Constant(many, list(range(LANES)))
    zero = ir.Constant(_VECTOR, [0.0] * LANES)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, _, own, num_branches, first, count, later, _, column, width = arguments
        begin, starts, row = (
            pointer(context, builder, signature.args[place], arguments[place], to)
            for place, to in ((0, ir.FloatType()), (1, number), (7, ir.FloatType()))
        )
        starts = builder.gep(starts, [own])

        def vector(place: Any, *offsets: Any) -> Any:
            for offset in offsets:
                place = builder.gep(place, [offset])
            return builder.bitcast(place, _VECTOR.as_pointer())

        def each_branch() -> Any:
            return numba.core.cgutils.for_range(builder, num_branches)

        def start_of(branch: Any) -> Any:
            return builder.load(builder.gep(starts, [branch]))

        def write(found: Any, branch: Any, done: Any) -> None:
            target = vector(row, column, builder.mul(branch, width), done)
            builder.store(found, target, align=4)

        num_vectors = builder.udiv(builder.add(width, number(LANES - 1)), number(LANES))
        with numba.core.cgutils.for_range(builder, num_vectors) as loop:
            # From the last to the first, since that of a branch reaches into the next branch.
            turn = builder.sub(builder.sub(num_vectors, loop.index), number(1))
            done = builder.mul(turn, number(LANES))
            rest = builder.trunc(builder.sub(count, done), small)
            with builder.if_else(builder.icmp_signed(">", rest, small(0))) as (some, none):
                with some:
                    undefined = ir.Constant(many, ir.Undefined)
                    repeated = builder.insert_element(undefined, rest, small(0))
                    everywhere = ir.Constant(many, [0] * LANES)
                    repeated = builder.shuffle_vector(repeated, undefined, everywhere)
                    present = builder.icmp_signed("<", lanes, repeated)
                    with each_branch() as inner:
                        source = vector(begin, start_of(inner.index), first, done)
                        found = builder.load(source, align=4)
                        kept = builder.and_(present, builder.fcmp_ordered("ord", found, found))
                        write(builder.select(kept, found, zero), inner.index, done)
                with none, each_branch() as inner:
                    write(zero, inner.index, done)
        with each_branch() as loop:
            prefetch(builder, vector(begin, start_of(loop.index), later), level=2)
        return context.get_dummy_value()

    inputs = values, starts, own, num_branches, first, count, later, row, column, width
    return numba.types.void(*inputs), generate


@numba.extending.intrinsic  # type: ignore[untyped-decorator]
def _store_lines(_: Any, row: Any, head: Any, out: Any, place: Any, num_lines: Any) -> Any:
    """Copy cache lines from ``row[head:]`` to ``out``, flat, at ``place``, where one begins."""
    line = ir.VectorType(ir.FloatType(), LINE // 4)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        begins = []
        for which in (0, 2):
            kind, array, place = signature.args[which], arguments[which], arguments[which + 1]
            begin = pointer(context, builder, kind, array, line.element)
            begins.append(builder.bitcast(builder.gep(begin, [place]), line.as_pointer()))
        source, target = begins
        with numba.core.cgutils.for_range(builder, arguments[4]) as loop:
            found = builder.load(builder.gep(source, [loop.index]), align=4)
            store_past_caches(builder, found, builder.gep(target, [loop.index]), LINE)
        return context.get_dummy_value()

    return numba.types.void(row, head, out, place, num_lines), generate


@numba.extending.intrinsic  # type: ignore[untyped-decorator]
def _fence(_: Any) -> Any:
    def generate(context: Any, builder: Any, _: Any, __: Any) -> Any:
        fence(builder)
        return context.get_dummy_value()

    return numba.types.void(), generate


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
        Row of ``offsets`` and first column of each jagged branch, ascending. No event has more
        objects than the branch has columns.
    rows : ndarray of int64, shape (rows,)
        Events to write. Ascending rows read memory in order.
    positions : ndarray of int64, shape (rows,)
        Row of ``out`` for each. Shuffling here costs little, since a dense row is long.
    out : ndarray of float32, shape (positions, columns)
        Receives the rows; contiguous.
    """
    num_columns = out.shape[1]
    widths = np.append(columns[1:], num_columns) - columns
    runs = _runs(collections, widths)
    row = np.zeros(num_columns + LANES, dtype=np.float32)
    is_large = out.size * out.itemsize >= PAST_CACHES
    # Views of arrays are counted by locked instructions, which wait for all stores: none below.
    address = np.int64(out.ctypes.data)
    for i in range(rows.size):
        event, later = rows[i], rows[min(i + AHEAD, rows.size - 1)]
        for column in range(num_flat):
            _ask_for(values, starts[column] + later)
            value = values[np.uint64(starts[column] + event)]
            row[column] = value if value == value else np.float32(0.0)
        for run in range(runs.size - 1):
            branch, stop = runs[run], runs[run + 1]
            collection, column = collections[branch], columns[branch]
            first, soon = offsets[collection, event], offsets[collection, later]
            count, width = offsets[collection, event + 1] - first, widths[branch]
            own = num_flat + branch
            if starts[num_flat + stop - 1] + first + width + LANES <= values.size:
                _pad(values, starts, own, stop - branch, first, count, soon, row, column, width)
            else:  # vectors would reach beyond the last values
                for place in range(width * (stop - branch)):
                    other, number = own + place // width, place % width
                    value = np.float32(0.0)
                    if number < count:
                        value = values[starts[other] + first + number]
                    row[column + place] = value if value == value else np.float32(0.0)
        head = tail = num_columns
        if is_large:
            begin = positions[i] * num_columns
            head = min((-(address + begin * 4) % LINE) // 4, num_columns)
            num_lines = (num_columns - head) * 4 // LINE
            tail = head + num_lines * LINE // 4
            _store_lines(row, head, out, begin + head, num_lines)
        for column in range(head):
            out[positions[i], column] = row[column]
        for column in range(tail, num_columns):
            out[positions[i], column] = row[column]
    _fence()


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _runs(collections: NDArray[np.int64], widths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each run of branches of one collection and width begins, and where the last ends."""
    places = np.empty(collections.size + 1, dtype=np.int64)
    num = 0
    for branch in range(collections.size):
        last = max(branch - 1, 0)
        if (
            branch == 0
            or collections[branch] != collections[last]
            or widths[branch] != widths[last]
        ):
            places[num] = branch
            num += 1
    places[num] = collections.size
    return places[: num + 1]


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _tile(out: NDArray[Any]) -> int:
    """Number of rows that are written together."""
    num_rows: int = TILE_BYTES // (max(out.shape[1], 1) * out.itemsize)
    return max(num_rows, 16)


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
