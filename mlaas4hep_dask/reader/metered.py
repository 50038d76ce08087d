"""Copies values as `byteorder` does, and measures them on the way.

A copy waits for memory, with its values in registers. Extremes and sums cost a quarter of the copy
then; they cost twice the copy if all values are fetched from memory for them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numpy.typing import NDArray

from mlaas4hep_dask.compiled import numba
from mlaas4hep_dask.reader.byteorder import LINE, copied_line, line_type, native
from mlaas4hep_dask.specs.meter import HIGH, LANES, LOW, SQUARES, TOTAL, Watch

_WIDE = ir.VectorType(ir.DoubleType(), LANES)


@numba.extending.intrinsic  # type: ignore[untyped-decorator]  # numba is not annotated
def _as_number(_: Any, bits: Any, like: Any) -> Any:
    """The number of the type of the array ``like`` that has these bits."""

    def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(like.dtype))

    return like.dtype(bits, like), generate


def _wide(builder: ir.IRBuilder, numbers: Any, part: int, dtype: Any) -> Any:
    """Some of the numbers of a line, as float64."""
    if numbers.type.count > LANES:
        places = range(part * LANES, (part + 1) * LANES)
        mask = ir.Constant(ir.VectorType(ir.IntType(32), LANES), list(places))
        numbers = builder.shuffle_vector(numbers, ir.Constant(numbers.type, ir.Undefined), mask)
    if not isinstance(dtype, numba.types.Float):
        convert = builder.sitofp if dtype.signed else builder.uitofp
        return convert(numbers, _WIDE)
    return numbers if dtype.bitwidth == 64 else builder.fpext(numbers, _WIDE)


def _chosen(builder: ir.IRBuilder, sign: str, a: Any, b: Any, dtype: Any) -> Any:
    """``a`` where it is smaller or greater than ``b``, else ``b``."""
    if isinstance(dtype, numba.types.Float):
        return builder.select(builder.fcmp_ordered(sign, a, b), a, b)
    compare = builder.icmp_signed if dtype.signed else builder.icmp_unsigned
    return builder.select(compare(sign, a, b), a, b)


@numba.extending.intrinsic  # type: ignore[untyped-decorator]  # numba is not annotated
def _meter_lines(_: Any, values: Any, target: Any, num_lines: Any, sums: Any, like: Any) -> Any:
    """Copy whole cache lines, at least one, of numbers of the type of the array ``like``."""
    line = line_type(values)
    parts = range(line.count // LANES)
    fused = ("contract",)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source, target, _, sums, _ = (
            context.make_array(kind)(context, builder, array).data
            if isinstance(kind, numba.types.Array)
            else array
            for kind, array in zip(signature.args, arguments, strict=True)
        )
        source, target = (builder.bitcast(place, line.as_pointer()) for place in (source, target))
        sums = builder.bitcast(sums, _WIDE.as_pointer())
        rows = [builder.gep(sums, [ir.IntType(64)(row)]) for row in range(4)]
        numbers = ir.VectorType(context.get_value_type(like.dtype), line.count)

        def variable(value: Any) -> Any:
            return numba.core.cgutils.alloca_once_value(builder, value)

        first = builder.bitcast(copied_line(builder, source, target, ir.IntType(64)(0)), numbers)
        low, high = variable(first), variable(first)
        zero = ir.Constant(_WIDE, [0.0] * LANES)
        totals, squares = ([variable(zero) for _ in parts] for _ in range(2))
        with numba.core.cgutils.for_range(builder, arguments[2]) as loop:
            found = builder.bitcast(copied_line(builder, source, target, loop.index), numbers)
            for place, sign in ((low, "<"), (high, ">")):
                best = _chosen(builder, sign, found, builder.load(place), like.dtype)
                builder.store(best, place)
            for part in parts:
                wide = _wide(builder, found, part, like.dtype)
                builder.store(builder.fadd(builder.load(totals[part]), wide), totals[part])
                square = builder.fmul(wide, wide, flags=fused)
                added = builder.fadd(builder.load(squares[part]), square, flags=fused)
                builder.store(added, squares[part])
        builder.fence("seq_cst")  # stores past the caches are not ordered with those that follow
        for row, places in ((TOTAL, totals), (SQUARES, squares)):
            value = builder.load(rows[row], align=8)
            for place in places:
                value = builder.fadd(value, builder.load(place))
            builder.store(value, rows[row], align=8)
        for row, place, sign in ((LOW, low, "<"), (HIGH, high, ">")):
            value = builder.load(rows[row], align=8)
            for part in parts:
                candidate = _wide(builder, builder.load(place), part, like.dtype)
                value = _chosen(builder, sign, candidate, value, numba.types.float64)
            builder.store(value, rows[row], align=8)
        return context.get_dummy_value()

    return numba.types.void(values, target, num_lines, sums, like), generate


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _copy(
    values: NDArray[Any],
    out: NDArray[Any],
    first: int,
    sums: NDArray[np.float64],
    places: NDArray[np.intp],
    drawn: NDArray[Any],
) -> None:
    size, num = values.itemsize, values.size
    target = out[first : first + num]
    begin, end = np.searchsorted(places, first), np.searchsorted(places, first + num)
    for i in range(begin, end):
        place = np.uint64(places[i] - first)  # unsigned, lest numba look for negative ones
        drawn[i] = _as_number(native(values[place]), drawn)
    head = min((-target.ctypes.data % LINE) // size, num)
    num_lines = (num - head) * size // LINE
    tail = head + num_lines * LINE // size
    if num_lines:
        _meter_lines(values[head:], target[head:], num_lines, sums, drawn)
    for start, stop in ((0, head), (tail, num)):
        for i in range(start, stop):
            target[i] = native(values[i])
            number = np.float64(_as_number(target[i], drawn))
            sums[LOW, 0] = min(sums[LOW, 0], number)
            sums[HIGH, 0] = max(sums[HIGH, 0], number)
            sums[TOTAL, 0] += number
            sums[SQUARES, 0] += number * number


def copy_metered(values: NDArray[Any], out: NDArray[Any], first: int, watch: Watch) -> None:
    """Copy the bits of big-endian ``values`` to ``out[first:]``, and note them in ``watch``.

    Parameters
    ----------
    values, out : ndarray
        As those of `copy_native`; ``out`` has the bits of all values that are watched.
    first : int
        Where the first of ``values`` belongs.
    watch : Watch
        What was seen so far.
    """
    if values.size:
        _copy(values, out, first, watch.sums, watch.places, watch.drawn)
