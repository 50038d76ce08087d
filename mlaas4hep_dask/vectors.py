"""Vectors, and ways around the caches, for kernels: numba has no words for these.

What is here builds LLVM code inside of intrinsics; LLVM finds what the processor has for it.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from mlaas4hep_dask.compiled import numba

LINE = 64  # bytes of a cache line, and of the widest vectors


def pointer(context: Any, builder: Any, kind: Any, array: Any, to: Any) -> Any:
    """Where the numbers of an array, whose type for numba is ``kind``, begin."""
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(data, to.as_pointer())


def store_past_caches(builder: Any, vector: Any, target: Any, num_bytes: int) -> None:
    """Store a vector of so many bytes at a multiple of them; `fence` must follow before long.

    An ordinary store fetches the line that it overwrites from memory first, which takes nearly as
    long as writing it. Locked instructions, with which numba counts the views of arrays, wait for
    such stores: there should be none between them.
    """
    store = builder.store(vector, target, align=num_bytes)
    store.set_metadata("nontemporal", builder.module.add_metadata([ir.IntType(32)(1)]))


def fence(builder: Any) -> None:
    """Order stores past the caches with those that follow."""
    builder.fence("seq_cst")


def prefetch(builder: Any, place: Any, level: int) -> None:
    """Ask for the line at a pointer, valid or not, to be in the cache of this level or nearer."""
    byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
    hints = [number(value) for value in (0, 4 - level, 1)]  # for reading, locality, data
    function = numba.core.cgutils.get_or_insert_function(
        builder.module,
        ir.FunctionType(ir.VoidType(), [byte, *(hint.type for hint in hints)]),
        "llvm.prefetch",
    )
    builder.call(function, [builder.bitcast(place, byte), *hints])
