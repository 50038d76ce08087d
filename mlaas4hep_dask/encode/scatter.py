"""Dense rows of encoded contents, and the missing mask.

A row of padding and few values is many times what it is made of: most of the time goes into
writing. So a row is built in the first-level cache, where every branch writes all of its columns
at once, values and padding alike, with no guess of how many objects an event has; and it is stored
past the other caches when the rows shall go to more memory than a second-level cache has.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numpy.typing import NDArray

from mlaas4hep_dask.compiled import numba
from mlaas4hep_dask.vectors import LINE, fence, pointer, prefetch, store_past_caches

LANES = 8  # values, and columns, that are written at once
AHEAD = 32  # rows: their values are asked for while others are written
TILE_BYTES = 24 * 1024  # rows that are built before they are stored, or one
PAST_CACHES = 4 * 1024 * 1024  # bytes of ``out`` that no second-level cache holds
FEW_BYTES = 256  # that follow each other: not worth their way past the caches


@numba.extending.intrinsic  # type: ignore[untyped-decorator]  # numba is not annotated
def _ask_for(_: Any, values: Any, place: Any) -> Any:
    """Ask for ``values[place]``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        begin = pointer(context, builder, signature.args[0], arguments[0], ir.FloatType())
        prefetch(builder, builder.gep(begin, [arguments[1]]), level=2)
        return context.get_dummy_value()

    return numba.types.void(values, place), generate


def _entries(builder: ir.IRBuilder, numbers: Any, present: Any, entry: Any) -> Any:
    """What rows with this type of entries have for values: 0 for missing ones, or which these are.

    ``numbers`` is one value or a vector; ``present`` tells which count, and is None for all.
    """
    kept = builder.fcmp_ordered("ord", numbers, numbers)  # not NaN
    if present is not None:
        kept = builder.and_(kept, present)
    if isinstance(entry, ir.FloatType):
        return builder.select(kept, numbers, ir.Constant(numbers.type, None))
    wide = entry if present is None else ir.VectorType(entry, numbers.type.count)
    return builder.zext(builder.not_(kept), wide)


@numba.extending.intrinsic  # type: ignore[untyped-decorator]
def _entry(_: Any, value: Any, row: Any) -> Any:
    """What ``row`` has for one value."""

    def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
        return _entries(builder, arguments[0], None, context.get_value_type(row.dtype))

    return row.dtype(value, row), generate


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
    ``starts[branch] + first``; others are missing. The values from ``starts[branch] + later`` are
    asked for. Vectors reach beyond values and columns, by less than `LANES`.
    """
    number, small = ir.IntType(64), ir.IntType(32)
    many = ir.VectorType(small, LANES)
    lanes = ir.Constant(many, list(range(LANES)))

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, _, own, num_branches, first, count, later, _, column, width = arguments
        entry = context.get_value_type(row.dtype)
        begin, starts, target = (
            pointer(context, builder, signature.args[place], arguments[place], to)
            for place, to in ((0, ir.FloatType()), (1, number), (7, entry))
        )
        starts = builder.gep(starts, [own])

        def vector(place: Any, *offsets: Any) -> Any:
            for offset in offsets:
                place = builder.gep(place, [offset])
            kind = ir.VectorType(place.type.pointee, LANES)
            return builder.bitcast(place, kind.as_pointer())

        def each_branch() -> Any:
            return numba.core.cgutils.for_range(builder, num_branches)

        def start_of(branch: Any) -> Any:
            return builder.load(builder.gep(starts, [branch]))

        def write(found: Any, branch: Any, done: Any) -> None:
            place = vector(target, column, builder.mul(branch, width), done)
            builder.store(found, place, align=row.dtype.bitwidth // 8)

        absent = 0.0 if isinstance(entry, ir.FloatType) else 1
        missing = ir.Constant(ir.VectorType(entry, LANES), [absent] * LANES)
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
                        found = _entries(builder, found, present, entry)
                        write(found, inner.index, done)
                with none, each_branch() as inner:
                    write(missing, inner.index, done)
        with each_branch() as loop:
            prefetch(builder, vector(begin, start_of(loop.index), later), level=2)
        return context.get_dummy_value()

    inputs = values, starts, own, num_branches, first, count, later, row, column, width
    return numba.types.void(*inputs), generate


@numba.extending.intrinsic  # type: ignore[untyped-decorator]
def _put(_: Any, row: Any, first: Any, out: Any, place: Any, num: Any, is_past: Any) -> Any:
    """Copy ``num`` entries from ``row[first:]`` to ``out``, flat, at ``place``.

    With ``is_past`` they fill cache lines, and go past the caches.
    """
    size = out.dtype.bitwidth // 8
    number = ir.IntType(64)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        entry = context.get_value_type(out.dtype)
        line = ir.VectorType(entry, LINE // size)
        ends = []
        for which in (0, 2):
            kind, array, begin = signature.args[which], arguments[which], arguments[which + 1]
            ends.append(builder.gep(pointer(context, builder, kind, array, entry), [begin]))
        source, target = ends
        with builder.if_else(arguments[5]) as (past, near):
            with past:
                source, target = (builder.bitcast(end, line.as_pointer()) for end in ends)
                num_lines = builder.udiv(arguments[4], number(LINE // size))
                with numba.core.cgutils.for_range(builder, num_lines) as loop:
                    found = builder.load(builder.gep(source, [loop.index]), align=size)
                    store_past_caches(builder, found, builder.gep(target, [loop.index]), LINE)
            with near:
                numba.core.cgutils.raw_memcpy(builder, ends[1], ends[0], arguments[4], size)
        return context.get_dummy_value()

    return numba.types.void(row, first, out, place, num, is_past), generate


@numba.extending.intrinsic  # type: ignore[untyped-decorator]
def _fence(_: Any) -> Any:
    """Order the stores past the caches with what follows."""

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
        Receives the rows; contiguous, aligned and writeable. Float32 gets the values, 0 where one
        is missing; uint8 gets 1 where one is missing, else 0.
    """
    num_columns, size = out.shape[1], out.itemsize
    widths = np.append(columns[1:], num_columns) - columns
    runs = _runs(collections, widths)
    together = max(TILE_BYTES // max(num_columns * size, 1), 1)
    tile = np.zeros(together * num_columns + LANES, dtype=out.dtype)
    is_large = out.size * size >= PAST_CACHES
    # Views of arrays are counted by locked instructions, which wait for all stores: none below.
    address = np.int64(out.ctypes.data)
    for begin in range(0, rows.size, together):
        end = min(begin + together, rows.size)
        for i in range(begin, end):
            event, later = rows[i], rows[min(i + AHEAD, rows.size - 1)]
            base = (i - begin) * num_columns
            for run in range(runs.size - 1):
                branch, stop = runs[run], runs[run + 1]
                collection, column = collections[branch], base + columns[branch]
                first, soon = offsets[collection, event], offsets[collection, later]
                count, width = offsets[collection, event + 1] - first, widths[branch]
                own = num_flat + branch
                # The last branch of a run begins last in memory, too.
                if starts[num_flat + stop - 1] + first + width + LANES <= values.size:
                    _pad(
                        values, starts, own, stop - branch, first, count, soon, tile, column, width
                    )
                else:  # vectors would reach beyond the last values
                    for place in range(width * (stop - branch)):
                        other, number = own + place // width, place % width
                        value = np.float32(np.nan)
                        if number < count:
                            value = values[starts[other] + first + number]
                        tile[column + place] = _entry(value, tile)
        # After the jagged ones: their last vectors reach into the next row.
        later = rows[min(end + AHEAD, rows.size) - 1]
        for column in range(num_flat):
            start = starts[column]
            _ask_for(values, start + later)
            for i in range(begin, end):
                value = values[np.uint64(start + rows[i])]
                tile[np.uint64((i - begin) * num_columns + column)] = _entry(value, tile)
        first = begin
        for i in range(begin, end):
            if i + 1 < end and positions[i + 1] == positions[i] + 1:
                continue  # rows that follow each other go together
            source, target = (first - begin) * num_columns, positions[first] * num_columns
            num = (i + 1 - first) * num_columns
            head, lines = num, 0
            if is_large and num * size >= FEW_BYTES:
                head = min((-(address + target * size) % LINE) // size, num)
                lines = (num - head) * size // LINE * LINE // size
            _put(tile, source, out, target, head, False)
            _put(tile, source + head, out, target + head, lines, True)
            tail = num - head - lines
            _put(tile, source + head + lines, out, target + head + lines, tail, False)
            first = i + 1
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
