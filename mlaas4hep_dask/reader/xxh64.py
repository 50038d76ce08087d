"""Checksums of lz4 blocks, some blocks at a time in vector registers.

A hash waits for its own multiplications: that of xxhash takes half as long as lz4 does to
decompress. Four that advance together, in vectors of four numbers, wait for memory alone. It is
asked ahead for what they need: so many places at once are more than processors foresee. The
algorithm is XXH64 with seed 0, as `xxHash's specification
<https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md>`_ has it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numpy.typing import NDArray

from mlaas4hep_dask.compiled import numba
from mlaas4hep_dask.vectors import pointer, prefetch

_P1 = np.uint64(0x9E3779B185EBCA87)
_P2 = np.uint64(0xC2B2AE3D27D4EB4F)
_P3 = np.uint64(0x165667B19E3779F9)
_P4 = np.uint64(0x85EBCA77C2B2AE63)
_P5 = np.uint64(0x27D4EB2F165667C5)
_NONE = -1
_LANES = 4
_STRIPE = 32  # bytes that the lanes of a block take in a step
_TOGETHER = 4  # blocks; multiplying a vector takes up to 15 cycles, and the next can start after 3
_AHEAD = 1024 // _STRIPE  # stripes


@numba.extending.intrinsic  # type: ignore[untyped-decorator]  # numba is not annotated
def _byte(_: Any, address: Any) -> Any:
    """The byte at ``address``, uint64."""

    def generate(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        return builder.load(builder.inttoptr(arguments[0], ir.IntType(8).as_pointer()))

    return numba.types.uint8(address), generate


@numba.extending.intrinsic  # type: ignore[untyped-decorator]
def _advance(_: Any, places: Any, lanes: Any, num_stripes: Any) -> Any:
    """Advance some blocks by ``num_stripes``.

    ``places``, uint64 of shape (_TOGETHER,), are the addresses of their next stripes; ``lanes``,
    uint64 of shape (_TOGETHER, 4), is their state.
    """
    number = ir.IntType(64)
    vector = ir.VectorType(number, _LANES)
    p1, p2, left, right = (
        ir.Constant(vector, [number(value)] * _LANES) for value in (int(_P1), int(_P2), 31, 33)
    )

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        places, lanes = (
            pointer(context, builder, signature.args[place], arguments[place], number)
            for place in (0, 1)
        )
        targets, states, stripes = [], [], []
        for block in map(number, range(_TOGETHER)):
            address = builder.load(builder.gep(places, [block]))
            stripes.append(builder.inttoptr(address, vector.as_pointer()))
            target = builder.gep(builder.bitcast(lanes, vector.as_pointer()), [block])
            targets.append(target)
            states.append(
                numba.core.cgutils.alloca_once_value(builder, builder.load(target, align=8))
            )
        with numba.core.cgutils.for_range(builder, arguments[2]) as loop:
            ahead = builder.add(loop.index, number(_AHEAD))
            for stripe in stripes:
                prefetch(builder, builder.gep(stripe, [ahead]), level=1)
            for state, stripe in zip(states, stripes, strict=True):
                words = builder.load(builder.gep(stripe, [loop.index]), align=1)
                mixed = builder.add(builder.load(state), builder.mul(words, p2))
                turned = builder.or_(builder.shl(mixed, left), builder.lshr(mixed, right))
                builder.store(builder.mul(turned, p1), state)
        for state, target in zip(states, targets, strict=True):
            builder.store(builder.load(state), target, align=8)
        return context.get_dummy_value()

    return numba.types.void(places, lanes, num_stripes), generate


@numba.njit(nogil=True, cache=True, inline="always")  # type: ignore[untyped-decorator]
def _turned(number: np.uint64, bits: int) -> np.uint64:
    return (number << np.uint64(bits)) | (number >> np.uint64(64 - bits))


@numba.njit(nogil=True, cache=True, inline="always")  # type: ignore[untyped-decorator]
def _round(state: np.uint64, word: np.uint64) -> np.uint64:
    turned: np.uint64 = _turned(state + word * _P2, 31)
    return turned * _P1


@numba.njit(nogil=True, cache=True, inline="always")  # type: ignore[untyped-decorator]
def _little(place: np.uint64, size: int) -> np.uint64:
    """The ``size`` bytes at ``place`` as a little-endian number."""
    number = np.uint64(0)
    for i in range(size):
        number |= np.uint64(_byte(place + np.uint64(i))) << np.uint64(8 * i)
    return number


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _start(lanes: NDArray[np.uint64]) -> None:
    lanes[0], lanes[1], lanes[2], lanes[3] = _P1 + _P2, _P2, np.uint64(0), np.uint64(0) - _P1


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _finish(lanes: NDArray[np.uint64], place: np.uint64, size: int) -> np.uint64:
    """The hash of a block of ``size`` bytes, whose last whole stripe ends at ``place``."""
    digest = _P5
    if size >= _STRIPE:
        digest = _turned(lanes[0], 1) + _turned(lanes[1], 7)
        digest += _turned(lanes[2], 12) + _turned(lanes[3], 18)
        for lane in lanes:
            digest = (digest ^ _round(np.uint64(0), lane)) * _P1 + _P4
    digest += np.uint64(size)
    left = size % _STRIPE
    while left >= 8:
        digest ^= _round(np.uint64(0), _little(place, 8))
        digest = _turned(digest, 27) * _P1 + _P4
        place += np.uint64(8)
        left -= 8
    if left >= 4:
        digest ^= _little(place, 4) * _P1
        digest = _turned(digest, 23) * _P2 + _P3
        place += np.uint64(4)
        left -= 4
    for i in range(left):
        digest ^= _little(place + np.uint64(i), 1) * _P5
        digest = _turned(digest, 11) * _P1
    digest = (digest ^ (digest >> np.uint64(33))) * _P2
    digest = (digest ^ (digest >> np.uint64(29))) * _P3
    return digest ^ (digest >> np.uint64(32))


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def hashes(addresses: NDArray[np.uint64], sizes: NDArray[np.int64]) -> NDArray[np.uint64]:
    """XXH64 of some blocks.

    Parameters
    ----------
    addresses : ndarray of uint64, shape (blocks,)
        Where in memory they are; the caller keeps them there.
    sizes : ndarray of int64, shape (blocks,)
        Their bytes.

    Returns
    -------
    ndarray of uint64, shape (blocks,)
    """
    digests = np.empty(sizes.size, dtype=np.uint64)
    lanes = np.empty((_TOGETHER, _LANES), dtype=np.uint64)
    blocks = np.full(_TOGETHER, _NONE)
    places = np.zeros(_TOGETHER, dtype=np.uint64)
    left = np.zeros(_TOGETHER, dtype=np.int64)  # stripes
    following = 0
    while True:
        for side in range(_TOGETHER):
            if left[side] > 0:
                continue
            block = blocks[side]
            if block != _NONE:
                digests[block] = _finish(lanes[side], places[side], sizes[block])
            blocks[side] = _NONE
            if following < sizes.size:
                blocks[side] = following
                places[side] = addresses[following]
                left[side] = sizes[following] // _STRIPE
                _start(lanes[side])
                following += 1
        busy = _NONE
        for side in range(_TOGETHER):
            if blocks[side] != _NONE:
                busy = side
        if busy == _NONE:
            return digests
        for side in range(_TOGETHER):
            if blocks[side] == _NONE:  # does what another does, for nothing
                places[side], left[side] = places[busy], left[busy]
        together = left.min()
        _advance(places, lanes, together)
        places += np.uint64(together * _STRIPE)
        left -= together


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def are_whole(addresses: NDArray[np.uint64], sizes: NDArray[np.int64]) -> bool:
    """True when each block is its own checksum, 8 bytes big-endian, and what has that checksum.

    Arguments are those of `hashes`; ``sizes`` are at least 8.
    """
    digests = hashes(addresses + np.uint64(8), sizes - 8)
    for block in range(sizes.size):
        stored = np.uint64(0)
        for i in range(8):
            stored = stored << np.uint64(8) | _little(addresses[block] + np.uint64(i), 1)
        if stored != digests[block]:
            return False
    return True
