"""Padding of objects to columns, eight at once, in the project's only instructions made by hand.

Every branch writes all of its columns, values and padding alike, with no guess of how many objects
an event has; and it asks for the values of a later event, since branches are more places in memory
than processors foresee. numba has no words for either. 25,000 events with 52 jagged branches (66 MB
of rows, on one core of a busy EPYC, 40 turns) take 17.5 ms this way and 27 ms by the fastest plain
loop, which writes zeros and then the values that there are; the read and encode of lz4 is to take
no more than 3.3 times the read, which allows for some 17.
"""

from __future__ import annotations

from typing import Any

import numba
from llvmlite import ir

LANES = 8  # values, and columns, that are written at once


def _pointer(context: Any, builder: Any, kind: Any, array: Any, to: Any) -> Any:
    """Where the numbers of an array, whose type for numba is ``kind``, begin."""
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(data, to.as_pointer())


def _prefetch(builder: Any, place: Any) -> None:
    """Ask for the line at a pointer, valid or not, to be in the second-level cache."""
    byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
    hints = [number(value) for value in (0, 2, 1)]  # for reading, locality, data
    function = numba.core.cgutils.get_or_insert_function(
        builder.module,
        ir.FunctionType(ir.VoidType(), [byte, *(hint.type for hint in hints)]),
        "llvm.prefetch",
    )
    builder.call(function, [builder.bitcast(place, byte), *hints])


@numba.extending.intrinsic  # type: ignore[untyped-decorator]  # numba is not annotated
def pad(
    _: Any,
    values: Any,
    starts: Any,
    base: Any,
    num_branches: Any,
    first: Any,
    count: Any,
    later: Any,
    row: Any,
    column: Any,
    width: Any,
) -> Any:
    """Write branches of a collection to columns of ``row``, each to ``width`` from ``column``.

    The branches are ``num_branches`` from the number ``base``. Each has ``count`` values, from
    ``starts[branch] + first``; others are missing, as NaN is. The values from
    ``starts[branch] + later`` are asked for. Vectors reach beyond values and columns, by less than
    `LANES`. A row of float32 gets the values, 0 for missing ones; of uint8, 1 for missing ones.
    """
    number, small = ir.IntType(64), ir.IntType(32)
    many, floats = (ir.VectorType(kind, LANES) for kind in (small, ir.FloatType()))
    lanes = ir.Constant(many, list(range(LANES)))

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, _, base, num_branches, first, count, later, _, column, width = arguments
        entry = context.get_value_type(row.dtype)
        is_mask = not isinstance(entry, ir.FloatType)
        entries = ir.VectorType(entry, LANES)
        begin, starts, target = (
            _pointer(context, builder, signature.args[place], arguments[place], to)
            for place, to in ((0, ir.FloatType()), (1, number), (7, entry))
        )
        starts = builder.gep(starts, [base])

        def vector(place: Any, *offsets: Any) -> Any:
            for offset in offsets:
                place = builder.gep(place, [offset])
            kind = ir.VectorType(place.type.pointee, LANES)
            return builder.bitcast(place, kind.as_pointer())

        def each_branch() -> Any:
            return numba.core.cgutils.for_range(builder, num_branches)

        def start_of(branch: Any) -> Any:
            return builder.load(builder.gep(starts, [branch]))

        def write(content: Any, branch: Any, offset: Any) -> None:
            place = vector(target, column, builder.mul(branch, width), offset)
            builder.store(content, place, align=row.dtype.bitwidth // 8)

        def padded(content: Any, present: Any) -> Any:
            not_nan = builder.fcmp_ordered("ord", content, content)
            is_number = builder.and_(not_nan, present)
            if is_mask:
                return builder.zext(builder.not_(is_number), entries)
            return builder.select(is_number, content, ir.Constant(floats, None))

        missing = ir.Constant(entries, [1 if is_mask else 0.0] * LANES)
        num_vectors = builder.udiv(builder.add(width, number(LANES - 1)), number(LANES))
        with numba.core.cgutils.for_range(builder, num_vectors) as loop:
            # From the last to the first, since that of a branch reaches into the next branch.
            turn = builder.sub(builder.sub(num_vectors, loop.index), number(1))
            offset = builder.mul(turn, number(LANES))
            rest = builder.trunc(builder.sub(count, offset), small)
            with builder.if_else(builder.icmp_signed(">", rest, small(0))) as (some, none):
                with some:
                    undefined = ir.Constant(many, ir.Undefined)
                    repeated = builder.insert_element(undefined, rest, small(0))
                    everywhere = ir.Constant(many, [0] * LANES)
                    repeated = builder.shuffle_vector(repeated, undefined, everywhere)
                    present = builder.icmp_signed("<", lanes, repeated)
                    with each_branch() as inner:
                        source = vector(begin, start_of(inner.index), first, offset)
                        content = builder.load(source, align=4)
                        write(padded(content, present), inner.index, offset)
                with none, each_branch() as inner:
                    write(missing, inner.index, offset)
        with each_branch() as loop:
            _prefetch(builder, vector(begin, start_of(loop.index), later))
        return context.get_dummy_value()

    inputs = values, starts, base, num_branches, first, count, later, row, column, width
    return numba.types.void(*inputs), generate
