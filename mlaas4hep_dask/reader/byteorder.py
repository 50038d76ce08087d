"""Copies big-endian values into native arrays, past the caches.

What is read of a partition is larger than the caches. An ordinary store fetches the line that it
overwrites from memory first, which takes nearly as long as writing it; these do not.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from llvmlite import ir
from numpy.typing import NDArray

from mlaas4hep_dask.compiled import numba

SIZES = (1, 2, 4, 8)  # bytes of a value
FEW = 16 * 1024  # bytes
_LINE = 64  # bytes of a cache line, and of the widest vectors
_IS_SWAPPED = sys.byteorder == "little"


@numba.extending.intrinsic  # type: ignore[untyped-decorator]  # numba is not annotated
def _swap_lines(_: Any, values: Any, target: Any, num_lines: Any) -> Any:
    """Copy whole cache lines; ``target`` begins with one, ``values`` anywhere."""
    size = values.dtype.bitwidth
    line = ir.VectorType(ir.IntType(size), _LINE * 8 // size)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        values, target = (
            builder.bitcast(
                context.make_array(kind)(context, builder, array).data, line.as_pointer()
            )
            for kind, array in zip(signature.args[:2], arguments[:2], strict=True)
        )
        past_caches = builder.module.add_metadata([ir.IntType(32)(1)])
        with numba.core.cgutils.for_range(builder, arguments[2]) as loop:
            lines = builder.load(builder.gep(values, [loop.index]), align=1)
            if _IS_SWAPPED and size > 8:
                swap = numba.core.cgutils.get_or_insert_function(
                    builder.module,
                    ir.FunctionType(line, [line]),
                    f"llvm.bswap.v{line.count}i{size}",
                )
                lines = builder.call(swap, [lines])
            store = builder.store(lines, builder.gep(target, [loop.index]), align=_LINE)
            store.set_metadata("nontemporal", past_caches)
        builder.fence("seq_cst")  # such stores are not ordered with those that follow
        return context.get_dummy_value()

    return numba.types.void(values, target, num_lines), generate


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _swapped(value: Any, size: int) -> np.uint64:
    number, swapped = np.uint64(value), np.uint64(0)
    for _ in range(size):
        swapped = (swapped << np.uint64(8)) | (number & np.uint64(0xFF))
        number >>= np.uint64(8)
    return swapped


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _copy(values: NDArray[Any], target: NDArray[Any]) -> None:
    size = values.itemsize
    head = min((-target.ctypes.data % _LINE) // size, target.size)
    num_lines = (target.size - head) * size // _LINE
    tail = head + num_lines * _LINE // size
    _swap_lines(values[head:], target[head:], num_lines)
    for first, last in ((0, head), (tail, target.size)):
        for i in range(first, last):
            target[i] = _swapped(values[i], size) if _IS_SWAPPED else values[i]


def copy_native(values: NDArray[Any], target: NDArray[Any]) -> None:
    """Copy the bits of big-endian ``values`` to those of native ones.

    Both are unsigned integers, of one of `SIZES`, and of the same shape (values,). ``values`` may
    begin at any address, ``target`` at a multiple of a value's bytes.
    """
    if values.nbytes < FEW:  # not worth the start of numba
        target[:] = values.view(values.dtype.newbyteorder(">"))
    else:
        _copy(values, target)
