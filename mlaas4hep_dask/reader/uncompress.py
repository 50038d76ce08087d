"""Uncompresses baskets of TTrees.

The layout of a basket is that of ROOT's TKey and TBasket (ROOT's `io/doc/TFile/datarecord.md`): a
key whose last 19 bytes are the basket's own header, then the values, then for jagged branches
their byte offsets. What follows the key is compressed in blocks of up to 16 MiB.

A basket that was not full when its tree was written may be embedded in the tree's own bytes, as
memory had it: its key and header, its byte offsets if it has any, then the key's room again and the
values (ROOT's `TBasket::Streamer`).
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

import cramjam
import deflate
import xxhash
import zstandard

from mlaas4hep_dask.reader.access import reason_of

_KEY = struct.Struct(">ihiIh")  # fNbytes, fVersion, fObjlen, fDatime, fKeylen
_BASKET = struct.Struct(">hiiii")  # fVersion, fBufferSize, fNevBufSize, fNevBuf, fLast
_BASKET_HEADER = _BASKET.size + 1
_INT = 4  # bytes
_WITH_VALUES = 10  # added to the flag of an embedded basket that has values
_WITHOUT_OFFSETS = 2  # the rest of its flag
_WITH_OFFSETS = 1
_BLOCK = struct.Struct("<2sxHBHB")  # algorithm, method, compressed and uncompressed size (24 bits)
_CHECKSUM = 8  # bytes before the content of an lz4 block, big-endian


class UnsupportedBasketError(Exception):
    """A basket is not of the plain kind; uproot shall read its branch."""


class NoOffsetsError(UnsupportedBasketError):
    """A basket does not tell where its entries begin, and some of them are asked for."""


class _Block(NamedTuple):
    algorithm: bytes
    start: int  # in the memory of its basket
    stop: int
    size: int  # bytes when uncompressed


class Basket(NamedTuple):
    """A basket as it is in the file; `Uncompress` takes it.

    ``memory`` has the bytes [start, stop) after its key. ``size`` is the number of bytes when
    uncompressed, ``border`` that of the values among them. Without ``blocks`` it is not compressed.
    It holds the entries [first, last) of ``branch``.
    """

    branch: str
    first: int
    last: int
    memory: memoryview
    start: int
    stop: int
    keylen: int
    size: int
    border: int
    blocks: list[_Block]

    def __str__(self) -> str:
        return _named(self.branch, self.first, self.last)


def _named(branch: str, first: int, last: int) -> str:
    return f"the basket of branch {branch!r} with entries {first}-{last}"


def find_basket(
    branch: str, first: int, last: int, memory: memoryview, start: int, stop: int
) -> Basket:
    """The basket whose key begins at ``start`` of ``memory``, and which ends until ``stop``.

    Raises
    ------
    UnsupportedBasketError
        When the key is not that of a basket.
    ValueError
        When it lies outside the memory, the blocks are not those of a whole basket, or it holds
        another number of entries.
    """
    if not 0 <= start <= stop <= len(memory):
        raise ValueError(
            f"{_named(branch, first, last)}: it lies at {start}-{stop} of {len(memory)} bytes"
        )
    if stop - start < _KEY.size + _BASKET_HEADER:
        raise UnsupportedBasketError("the basket is shorter than its key")
    nbytes, _, size, _, keylen = _KEY.unpack_from(memory, start)
    if not _KEY.size + _BASKET_HEADER <= keylen <= nbytes <= stop - start:
        raise UnsupportedBasketError("the key's length lies outside the basket")
    _, _, _, num_entries, end = _BASKET.unpack_from(memory, start + keylen - _BASKET_HEADER)
    if num_entries != last - first:
        raise ValueError(f"{_named(branch, first, last)}: its key says {num_entries} entries")
    border = end - keylen
    if not 0 <= border <= size:
        raise UnsupportedBasketError("the values' length lies outside the basket")
    stop = start + nbytes
    start += keylen
    blocks = []
    if stop - start != size:
        place, total = start, 0
        while total < size:
            begin = place + _BLOCK.size
            if begin > stop:
                raise ValueError(
                    f"{_named(branch, first, last)}: it ends after {total} of {size} bytes"
                )
            algorithm, low, high, out_low, out_high = _BLOCK.unpack_from(memory, place)
            place = begin + (high << 16 | low)
            num_uncompressed = out_high << 16 | out_low
            total += num_uncompressed
            if place > stop or total > size:
                raise ValueError(f"{_named(branch, first, last)}: a block exceeds its {size} bytes")
            blocks.append(_Block(algorithm, begin, place, num_uncompressed))
    return Basket(branch, first, last, memory, start, stop, keylen, size, border, blocks)


def find_embedded(branch: str, first: int, last: int, memory: memoryview, place: int) -> Basket:
    """The basket that is embedded at ``place`` of a tree's own bytes.

    Raises
    ------
    UnsupportedBasketError
        When it is of a kind that only uproot reads.
    ValueError
        When it leaves the memory, or holds another number of entries.
    """
    name = _named(branch, first, last)
    if not 0 <= place <= len(memory) - _KEY.size - _BASKET_HEADER:
        raise ValueError(f"{name}: it lies at {place} of the {len(memory)} bytes of the tree")
    nbytes, _, _, _, keylen = _KEY.unpack_from(memory, place)
    start = place + keylen
    if nbytes > keylen or keylen < _KEY.size + _BASKET_HEADER or start > len(memory):
        raise UnsupportedBasketError(f"{name}: its key is not that of an embedded one")
    version, _, _, num_entries, end = _BASKET.unpack_from(memory, start - _BASKET_HEADER)
    flag = memory[start - 1]
    if num_entries != last - first:
        raise ValueError(f"{name}: its key says {num_entries} entries")
    if num_entries == 0:
        return Basket(branch, first, last, memory[:0], 0, 0, keylen, 0, 0, [])
    kind = flag - _WITH_VALUES
    if version < 2 or kind not in (_WITH_OFFSETS, _WITHOUT_OFFSETS) or end < keylen:
        raise UnsupportedBasketError(f"{name}: it is of version {version} and kind {flag}")
    border = end - keylen
    offsets = _INT * (1 + num_entries) if kind == _WITH_OFFSETS else 0
    begin, stop = start + offsets + keylen, start + offsets + end
    if stop > len(memory):
        raise ValueError(f"{name}: it ends at {stop} of the {len(memory)} bytes of the tree")
    # As those of other baskets: offsets behind the values.
    payload = memory[begin:stop]
    if offsets:
        payload = memoryview(b"".join((payload, memory[start : start + offsets])))
    size = border + offsets
    return Basket(branch, first, last, payload, 0, size, keylen, size, border, [])


class Uncompress:
    """Uncompresses one basket after the other; what it gives, read-only, is valid until the next.

    Checksums of lz4 are compared for all blocks, those of other codecs where they are at hand. A
    ValueError names the basket that cannot be uncompressed.
    """

    def __init__(self) -> None:
        self._buffer = memoryview(b"")
        self._zstd = zstandard.ZstdDecompressor()

    def __call__(self, basket: Basket) -> memoryview:
        """All of the basket's data: its values, and behind its border entry offsets."""
        return self._first(basket, basket.size)

    def values(self, basket: Basket) -> memoryview:
        """The basket's values; entry offsets, often a quarter of the data, are not looked at."""
        return self._first(basket, basket.border)

    def _first(self, basket: Basket, num_bytes: int) -> memoryview:
        if not basket.blocks:
            return basket.memory[basket.start : basket.start + num_bytes]
        if len(self._buffer) < basket.size:
            self._buffer = memoryview(bytearray(basket.size))
        piece, needed, total = self._buffer, num_bytes, 0
        for block in basket.blocks:
            content = _whole(basket, block)
            if total >= num_bytes:
                continue  # to the checksums of the rest
            needed = min(block.size, num_bytes - total)
            try:
                piece = self._block(block, content, needed, total)
            except UnsupportedBasketError:
                raise
            except Exception as error:  # codecs have errors of their own
                raise ValueError(f"{basket}: {reason_of(error)}") from error
            if needed < num_bytes:
                self._buffer[total : total + needed] = piece[:needed]
            total += block.size
        # Nearly always there is one block, whose piece may lie elsewhere.
        return (piece if needed == num_bytes else self._buffer)[:num_bytes].toreadonly()

    def _block(self, block: _Block, content: memoryview, needed: int, place: int) -> memoryview:
        """At least the first ``needed`` bytes of a block, at ``place`` of the buffer."""
        algorithm, _, _, size = block
        if algorithm == b"L4":
            target = self._buffer[place : place + size]
            piece = target[: cramjam.lz4.decompress_block_into(content, target)]
        elif algorithm == b"ZL":  # all of it: its checksum stands at the end
            piece = memoryview(deflate.zlib_decompress(content, size))
        elif algorithm == b"XZ":  # likewise
            target = self._buffer[place : place + size]
            piece = target[: cramjam.xz.decompress_into(content, target)]
        elif algorithm == b"ZS":
            size = size if _has_checksum(content) else needed
            target = self._buffer[place : place + size]
            with self._zstd.stream_reader(content, read_size=len(content)) as stream:
                piece = target[: stream.readinto(target)]
        else:
            raise UnsupportedBasketError(f"compression {algorithm!r}")
        if len(piece) != size:
            raise ValueError(f"{len(piece)} bytes uncompressed, expected {size}")
        return piece


def _whole(basket: Basket, block: _Block) -> memoryview:
    """What a block has for its codec; a ValueError unless the checksum before it matches."""
    algorithm, start, stop, _ = block
    memory = basket.memory
    if algorithm != b"L4":
        return memory[start:stop]
    if stop - start < _CHECKSUM:
        raise ValueError(f"{basket}: an lz4 block is shorter than its checksum")
    content = memory[start + _CHECKSUM : stop]
    if xxhash.xxh64_digest(content) != memory[start : start + _CHECKSUM]:
        raise ValueError(f"{basket}: the checksum of an lz4 block does not match")
    return content


def _has_checksum(frame: Any) -> bool:
    """True for a zstd frame whose content is followed by its checksum (RFC 8878, 3.1.1.1)."""
    return len(frame) > 4 and bool(frame[4] & 0x04)
