"""Measures the values of baskets, and copies them as `byteorder` does if they are needed.

A basket lies in a cache when it has been uncompressed. Extremes and sums take a fifth of the time
there that they take when all values of a partition are fetched from memory for them.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numpy.typing import NDArray

from mlaas4hep_dask.compiled import numba
from mlaas4hep_dask.reader.byteorder import native, native_vector, vector_type
from mlaas4hep_dask.specs.meter import Watch
from mlaas4hep_dask.specs.moments import add_row
from mlaas4hep_dask.vectors import LINE, fence, pointer

VECTOR = 32  # bytes; sums of wider ones lower some processors' clock, for all that follows too
LANES = 4  # float64 in a vector
NUM_SUMS = 4  # vectors of partial sums, at most: each addition to one would await the last
LOW, HIGH, TOTAL, SQUARES = range(4)  # rows of the partial sums
_PER_LINE = LINE // VECTOR
_LEAST = 1e-3  # of the sum of squares: squared deviations from the mean that have lost few digits
_WIDE = ir.VectorType(ir.DoubleType(), LANES)


@numba.extending.intrinsic  # type: ignore[untyped-decorator]  # numba is not annotated
def _as_number(_: Any, bits: Any, like: Any) -> Any:
    """The number of the type of the array ``like`` that has these bits."""

    def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(like.dtype))

    return like.dtype(bits, like), generate


def _wide(builder: ir.IRBuilder, numbers: Any, part: int, dtype: Any) -> Any:
    """Some of the numbers of a vector, as float64."""
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
    """Measure whole cache lines, at least one, of numbers of the type of the array ``like``.

    They are copied to ``target`` too, unless that is None.
    """
    vector = vector_type(values, VECTOR)
    parts = range(vector.count // LANES)
    fused = ("contract",)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        def begin(place: int, to: Any) -> Any:
            kind = signature.args[place]
            if isinstance(kind, numba.types.NoneType):
                return None
            return pointer(context, builder, kind, arguments[place], to)

        def variables(value: Any, num: int) -> list[Any]:
            return [numba.core.cgutils.alloca_once_value(builder, value) for _ in range(num)]

        source, target, sums = begin(0, vector), begin(1, vector), begin(3, _WIDE)
        rows = [builder.gep(sums, [ir.IntType(64)(row)]) for row in range(4)]
        numbers = ir.VectorType(context.get_value_type(like.dtype), vector.count)
        first = builder.bitcast(native_vector(builder, source, None, ir.IntType(64)(0)), numbers)
        low, high = variables(first, _PER_LINE), variables(first, _PER_LINE)
        zero = ir.Constant(_WIDE, [0.0] * LANES)
        totals, squares = variables(zero, NUM_SUMS), variables(zero, NUM_SUMS)
        with numba.core.cgutils.for_range(builder, arguments[2]) as loop:
            start = builder.mul(loop.index, ir.IntType(64)(_PER_LINE))
            for number in range(_PER_LINE):
                index = builder.add(start, ir.IntType(64)(number))
                found = builder.bitcast(native_vector(builder, source, target, index), numbers)
                for place, sign in ((low[number], "<"), (high[number], ">")):
                    best = _chosen(builder, sign, found, builder.load(place), like.dtype)
                    builder.store(best, place)
                for part in parts:
                    wide = _wide(builder, found, part, like.dtype)
                    own = (number * len(parts) + part) % NUM_SUMS
                    builder.store(builder.fadd(builder.load(totals[own]), wide), totals[own])
                    square = builder.fmul(wide, wide, flags=fused)
                    added = builder.fadd(builder.load(squares[own]), square, flags=fused)
                    builder.store(added, squares[own])
        fence(builder)
        for row, places in ((TOTAL, totals), (SQUARES, squares)):
            value = builder.load(rows[row], align=8)
            for place in places:
                value = builder.fadd(value, builder.load(place))
            builder.store(value, rows[row], align=8)
        for row, places, sign in ((LOW, low, "<"), (HIGH, high, ">")):
            value = builder.load(rows[row], align=8)
            for place in places:
                for part in parts:
                    candidate = _wide(builder, builder.load(place), part, like.dtype)
                    value = _chosen(builder, sign, candidate, value, numba.types.float64)
            builder.store(value, rows[row], align=8)
        return context.get_dummy_value()

    return numba.types.void(values, target, num_lines, sums, like), generate


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _copy(
    values: NDArray[Any],
    out: NDArray[Any] | None,
    first: int,
    own: int,
    numbers: NDArray[np.float64],
    places: NDArray[np.intp],
    drawn: NDArray[Any],
) -> None:
    size, num = values.itemsize, values.size
    begin, end = _first_from(places, first), _first_from(places, first + num)
    for i in range(begin, end):
        place = np.uint64(places[i] - first)  # unsigned, lest numba look for negative ones
        drawn[own, i] = _as_number(native(values[place]), drawn)
    head = 0
    if out is not None:
        target = out[first : first + num]
        head = min((-target.ctypes.data % LINE) // size, num)
    num_lines = (num - head) * size // LINE
    tail = head + num_lines * LINE // size
    sums = _no_sums()
    if num_lines:
        if out is None:
            _meter_lines(values, None, num_lines, sums, drawn)
        else:
            _meter_lines(values[head:], target[head:], num_lines, sums, drawn)
    for start, stop in ((0, head), (tail, num)):
        for i in range(start, stop):
            bits = native(values[i])
            if out is not None:
                target[i] = bits
            _note(np.float64(_as_number(bits, drawn)), sums)
    row = _row_of(sums, num)
    if math.isnan(row[7]):
        _measure(values, drawn, row)
    add_row(numbers[own], row)


# What does not depend on the type of the values, and is compiled once.
@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _first_from(places: NDArray[np.intp], least: int) -> int:
    """Where the first of the ascending places that is not less stands."""
    low, high = 0, places.size
    while low < high:
        middle = (low + high) // 2
        if places[middle] < least:
            low = middle + 1
        else:
            high = middle
    return low


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _no_sums() -> NDArray[np.float64]:
    sums = np.empty((4, LANES))
    for lane in range(LANES):
        sums[LOW, lane], sums[HIGH, lane] = math.inf, -math.inf
        sums[TOTAL, lane] = sums[SQUARES, lane] = 0.0
    return sums


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _note(number: float, sums: NDArray[np.float64]) -> None:
    sums[LOW, 0] = min(sums[LOW, 0], number)
    sums[HIGH, 0] = max(sums[HIGH, 0], number)
    sums[TOTAL, 0] += number
    sums[SQUARES, 0] += number * number


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _row_of(sums: NDArray[np.float64], num: int) -> NDArray[np.float64]:
    """The row of moments; squared deviations are NaN where sums do not tell them."""
    low, high, total, squares = math.inf, -math.inf, 0.0, 0.0
    for lane in range(LANES):
        low, high = min(low, sums[LOW, lane]), max(high, sums[HIGH, lane])
        total += sums[TOTAL, lane]
        squares += sums[SQUARES, lane]
    mean = total / num
    spread = squares - mean * mean * num
    row = np.zeros(8)
    row[0], row[4], row[5], row[6] = num, low + 0.0, high + 0.0, mean  # not -0.0
    row[7] = spread if _LEAST * squares <= spread < math.inf else math.nan
    return row


# No flag lets LLVM assume that there are no NaN or infinities. Nothing branches on a value: which
# of them are finite is not to be guessed.
@numba.njit(nogil=True, cache=True, fastmath={"contract", "reassoc", "nsz"})  # type: ignore[untyped-decorator]
def _measure(values: NDArray[Any], like: NDArray[Any], row: NDArray[np.float64]) -> None:
    """Moments of values that are not finite, or so close together that sums have lost digits."""
    pivot = math.nan
    for i in range(values.size):
        pivot = np.float64(_as_number(native(values[i]), like))
        if math.isfinite(pivot):
            break
    low = high = pivot
    total = 0.0
    num_finite = num_nan = num_posinf = 0
    for i in range(values.size):
        number = np.float64(_as_number(native(values[i]), like))
        is_finite = math.isfinite(number)
        value = number if is_finite else pivot
        num_finite += is_finite
        num_nan += math.isnan(number)
        num_posinf += number == math.inf
        total += value - pivot
        low = value if value < low else low
        high = value if value > high else high
    row[1], row[2] = num_nan, num_posinf
    row[3] = values.size - num_finite - num_nan - num_posinf
    row[6] = row[7] = 0.0
    if num_finite == 0:
        row[4] = row[5] = math.nan
        return
    mean = pivot + total / num_finite
    squares = 0.0
    for i in range(values.size):
        number = np.float64(_as_number(native(values[i]), like))
        deviation = number - mean if math.isfinite(number) else 0.0
        squares += deviation * deviation
    # Beyond float64, such as for sentinels at its end: NaN, for others to see to.
    row[4], row[5], row[6] = low + 0.0, high + 0.0, mean
    row[7] = squares if math.isfinite(squares) else math.nan


def copy_metered(values: NDArray[Any], out: NDArray[Any] | None, first: int, watch: Watch) -> None:
    """Note big-endian ``values`` in ``watch``, and copy their bits to ``out[first:]``.

    Parameters
    ----------
    values, out : ndarray
        As those of `copy_native`. ``values`` are read-only: for others numba compiles once more.
        ``out`` has the bits of all values that are watched, or is None when these are not needed.
    first : int
        Where the first of ``values`` belongs.
    watch : Watch
        What was seen so far.
    """
    if values.size:
        if not values.flags.aligned:
            values = values.copy()
            values.flags.writeable = False
        _copy(values, out, first, *watch)
