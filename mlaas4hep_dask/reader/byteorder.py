"""Copies big-endian values into native arrays, past the caches.

What is read of a partition is larger than the caches.
"""

from __future__ import annotations

import sys
from typing import Any

from llvmlite import ir
from numpy.typing import NDArray

from mlaas4hep_dask.compiled import numba
from mlaas4hep_dask.vectors import LINE, fence, pointer, store_past_caches

SIZES = (1, 2, 4, 8)  # bytes of a value
FEW = 16 * 1024  # bytes
_IS_SWAPPED = sys.byteorder == "little"


def vector_type(values: Any, num_bytes: int) -> ir.VectorType:
    """A vector of the integers of an array, given its type for numba."""
    size = values.dtype.bitwidth
    return ir.VectorType(ir.IntType(size), num_bytes * 8 // size)


def native_vector(builder: ir.IRBuilder, source: Any, target: Any, index: Any) -> Any:
    """A vector at one pointer's place, made native and stored at another's unless that is None.

    ``target`` begins at a multiple of the vector's bytes, ``source`` lies anywhere.
    """
    vector = builder.load(builder.gep(source, [index]), align=1)
    size = vector.type.element.width
    if _IS_SWAPPED and size > 8:
        swap = numba.core.cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(vector.type, [vector.type]),
            f"llvm.bswap.v{vector.type.count}i{size}",
        )
        vector = builder.call(swap, [vector])
    if target is not None:
        num_bytes = vector.type.count * size // 8
        store_past_caches(builder, vector, builder.gep(target, [index]), num_bytes)
    return vector


@numba.extending.intrinsic  # type: ignore[untyped-decorator]  # numba is not annotated
def _swap_lines(_: Any, values: Any, target: Any, num_lines: Any) -> Any:
    """Copy whole cache lines."""
    line = vector_type(values, LINE)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source, target = (
            pointer(context, builder, signature.args[place], arguments[place], line)
            for place in (0, 1)
        )
        with numba.core.cgutils.for_range(builder, arguments[2]) as loop:
            native_vector(builder, source, target, loop.index)
        fence(builder)
        return context.get_dummy_value()

    return numba.types.void(values, target, num_lines), generate


@numba.extending.intrinsic  # type: ignore[untyped-decorator]  # numba is not annotated
def native(_: Any, bits: Any) -> Any:
    """The native bits of one big-endian value."""

    def generate(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        is_turned = _IS_SWAPPED and bits.bitwidth > 8
        return builder.bswap(arguments[0]) if is_turned else arguments[0]

    return bits(bits), generate


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _copy(values: NDArray[Any], target: NDArray[Any]) -> None:
    size = values.itemsize
    head = min((-target.ctypes.data % LINE) // size, target.size)
    num_lines = (target.size - head) * size // LINE
    tail = head + num_lines * LINE // size
    _swap_lines(values[head:], target[head:], num_lines)
    for first, last in ((0, head), (tail, target.size)):
        for i in range(first, last):
            target[i] = native(values[i])


def copy_native(values: NDArray[Any], target: NDArray[Any]) -> None:
    """Copy the bits of big-endian ``values`` to those of native ones.

    Both are unsigned integers, of one of `SIZES`, and of the same shape (values,). ``values`` may
    begin at any address, ``target`` at a multiple of a value's bytes.
    """
    if values.nbytes < FEW:  # not worth the start of numba
        target[:] = values.view(values.dtype.newbyteorder(">"))
    else:
        _copy(values, target)
