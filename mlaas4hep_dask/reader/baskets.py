"""Decodes TTree baskets straight into native arrays, which awkward then never has to copy.

uproot finds the baskets and knows what they hold; this module only moves their bytes. The
layout of a basket is that of ROOT's TKey and TBasket (ROOT's `io/doc/TFile/datarecord.md`): a
key whose last 19 bytes are the basket's own header, then the values, then for jagged branches
their byte offsets. Anything that is not a plain number, or a list of them counted by another
branch, is left to uproot.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cramjam
import deflate
import numpy as np
import uproot
import xxhash
import zstandard
from numpy.typing import NDArray

from mlaas4hep_dask.reader.access import heard
from mlaas4hep_dask.reader.mapped import let_go

MERGE_GAP = 64 * 1024  # bytes between two ranges that are fetched as one
MERGE_LIMIT = 8 * 1024 * 1024  # bytes fetched at once: XRootD's client joins longer answers slowly

_KEY = struct.Struct(">ihiIh")  # fNbytes, fVersion, fObjlen, fDatime, fKeylen
_BASKET = struct.Struct(">hiiii")  # fVersion, fBufferSize, fNevBufSize, fNevBuf, fLast
_BASKET_HEADER = _BASKET.size + 1


class UnsupportedBasketError(Exception):
    """A basket is not of the plain kind; uproot shall read its branch."""


@dataclass(frozen=True, slots=True)
class BasketTable:
    """Where the baskets of one branch lie.

    ``seeks`` and ``sizes`` are bytes, shape (baskets,); ``entries``, shape (baskets + 1,), are
    the entries at which they begin and the last one ends. ``counter`` is the branch that holds
    the multiplicities of a jagged one.
    """

    seeks: NDArray[np.int64]
    sizes: NDArray[np.int64]
    entries: NDArray[np.int64]
    dtype: np.dtype[Any]
    counter: str | None

    def overlapping(self, start: int, stop: int) -> range:
        """Numbers of the baskets with entries in [start, stop)."""
        first = int(self.entries.searchsorted(start, side="right")) - 1
        last = int(self.entries.searchsorted(stop, side="left"))
        return range(max(first, 0), min(last, len(self.seeks)))


def basket_table(branch: Any) -> BasketTable | None:
    """Table of a TBranch, or None when uproot shall read it."""
    interpretation = branch.interpretation
    counter = None
    if isinstance(interpretation, uproot.AsJagged):
        if interpretation.header_bytes != 0 or branch.count_branch is None:
            return None
        counter = branch.count_branch.name
        interpretation = interpretation.content
    if type(interpretation) is not uproot.AsDtype or branch.embedded_baskets:
        return None
    dtype = interpretation.from_dtype
    same_values = dtype.newbyteorder("=") == interpretation.to_dtype.newbyteorder("=")
    if dtype.shape != () or not same_values or len(branch.member("fLeaves")) != 1:
        return None
    num = branch.num_baskets
    return BasketTable(
        np.asarray(branch.member("fBasketSeek")[:num], dtype=np.int64),
        np.asarray(branch.member("fBasketBytes")[:num], dtype=np.int64),
        np.asarray(branch.entry_offsets, dtype=np.int64),
        dtype,
        counter,
    )


def read_baskets(
    source: Any, tables: Mapping[str, BasketTable], start: int, stop: int
) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[np.int64]]]:
    """Contents of every branch, and offsets by counter, of the entries [start, stop).

    ``tables`` holds the counters of all jagged branches too.

    Raises
    ------
    UnsupportedBasketError
        When a basket is of a kind that only uproot reads.
    """
    for name, table in tables.items():
        if start < stop and not table.entries[0] <= start < stop <= table.entries[-1]:
            raise UnsupportedBasketError(f"the baskets of {name!r} do not cover the entries")
    fetched = _fetch(source, tables, start, stop)
    uncompress = _Uncompress()
    flat = {name: table for name, table in tables.items() if table.counter is None}
    jagged = {name: table for name, table in tables.items() if table.counter is not None}
    num_entries = stop - start
    contents = _empty({name: (table.dtype, num_entries) for name, table in flat.items()})
    counters = {str(table.counter) for table in jagged.values()}
    offsets: dict[str, NDArray[np.int64]] = {}
    for name, table in flat.items():
        out = contents[name]
        _read_flat(table, uncompress, fetched[name], start, stop, out)
        if name in counters:
            if num_entries and out.min() < 0:
                raise UnsupportedBasketError(f"negative multiplicity in {name!r}")
            offsets[name] = np.zeros(num_entries + 1, dtype=np.int64)
            np.cumsum(out, out=offsets[name][1:])
    sizes = {name: int(offsets[str(table.counter)][-1]) for name, table in jagged.items()}
    contents |= _empty({name: (table.dtype, sizes[name]) for name, table in jagged.items()})
    for name, table in jagged.items():
        ends = offsets[str(table.counter)]
        _read_jagged(table, uncompress, fetched[name], start, stop, ends, contents[name])
    let_go(source, sum(len(raw) for baskets in fetched.values() for _, raw in baskets))
    return contents, offsets


def _empty(wanted: Mapping[str, tuple[np.dtype[Any], int]]) -> dict[str, NDArray[Any]]:
    """Arrays in native byte order, of one piece of memory.

    NumPy asks the kernel for large pages when it allocates some megabytes at once. The page
    faults of many small arrays take longer than filling them.
    """
    places = {}
    total = 0
    for name, (dtype, size) in wanted.items():
        places[name] = total
        total += -(-dtype.itemsize * size // 64) * 64  # each begins a cache line
    memory = np.empty(total, dtype=np.uint8)
    return {
        name: memory[places[name] : places[name] + dtype.itemsize * size].view(
            dtype.newbyteorder("=")
        )
        for name, (dtype, size) in wanted.items()
    }


def _fetch(
    source: Any, tables: Mapping[str, BasketTable], start: int, stop: int
) -> dict[str, list[tuple[int, Any]]]:
    """For each branch the numbers of its baskets and their bytes, key included."""
    wanted = [
        (int(table.seeks[number]), int(table.seeks[number] + table.sizes[number]), name, number)
        for name, table in tables.items()
        for number in table.overlapping(start, stop)
    ]
    wanted.sort()
    spans: list[list[int]] = []
    for first, last, _, _ in wanted:
        if (
            spans
            and first - spans[-1][1] <= MERGE_GAP
            and max(last, spans[-1][1]) - spans[-1][0] <= MERGE_LIMIT
        ):
            spans[-1][1] = max(spans[-1][1], last)
        else:
            spans.append([first, last])
    chunks = source.chunks([tuple(span) for span in spans], notifications=_Discard())
    fetched: dict[str, list[tuple[int, Any]]] = {name: [] for name in tables}
    place = 0
    view = memoryview(b"")
    loaded = -1
    for first, last, name, number in wanted:
        while first >= spans[place][1]:
            place += 1
        if loaded != place:
            view = np.ascontiguousarray(chunks[place].raw_data).data.cast("B")
            heard()
            loaded = place
        offset = spans[place][0]
        fetched[name].append((number, view[first - offset : last - offset]))
    return fetched


class _Discard:
    """A queue that nobody reads: uproot's sources announce chunks, and we wait on each."""

    def put(self, item: object) -> None:
        """Drop the item."""


def _read_flat(
    table: BasketTable,
    uncompress: _Uncompress,
    baskets: Sequence[tuple[int, Any]],
    start: int,
    stop: int,
    out: NDArray[Any],
) -> None:
    for number, raw in baskets:
        first, last = int(table.entries[number]), int(table.entries[number + 1])
        values = np.frombuffer(uncompress.values(raw), dtype=table.dtype)
        if len(values) != last - first:
            raise UnsupportedBasketError("number of values differs from number of entries")
        low, high = max(first, start), min(last, stop)
        out[low - start : high - start] = values[low - first : high - first]


def _read_jagged(
    table: BasketTable,
    uncompress: _Uncompress,
    baskets: Sequence[tuple[int, Any]],
    start: int,
    stop: int,
    offsets: NDArray[np.int64],
    out: NDArray[Any],
) -> None:
    for number, raw in baskets:
        first, last = int(table.entries[number]), int(table.entries[number + 1])
        low, high = max(first, start), min(last, stop)
        if (low, high) == (first, last):
            data = uncompress.values(raw)
        else:  # the basket sticks out: its own offsets tell where
            whole, border = uncompress(raw)
            begin, end = _entry_bytes(raw, whole, border, last - first, low - first, high - first)
            data = whole[begin:end]
        values = np.frombuffer(data, dtype=table.dtype)
        target = out[offsets[low - start] : offsets[high - start]]
        if len(values) != len(target):
            raise UnsupportedBasketError("number of values differs from the counter's sum")
        target[:] = values


def _entry_bytes(
    raw: Any, data: memoryview, border: int, num_entries: int, low: int, high: int
) -> tuple[int, int]:
    # int32: the number of entries + 1, the byte offset of each entry counted from the key, 0.
    stored = np.frombuffer(data[border:], dtype=">i4")
    if len(stored) < num_entries + 1:
        raise UnsupportedBasketError("no entry offsets")
    keylen = _KEY.unpack_from(raw)[4]
    ends = np.append(stored[1 : num_entries + 1] - keylen, border)
    return int(ends[low]), int(ends[high])


class _Uncompress:
    """Uncompresses one basket after the other; what it gives is valid until the next."""

    def __init__(self) -> None:
        self._buffer = np.empty(0, dtype=np.uint8)
        self._zstd = zstandard.ZstdDecompressor()

    def __call__(self, raw: Any) -> tuple[memoryview, int]:
        """The basket's data and the length of its values, the rest being entry offsets."""
        payload, objlen, border = _parts(raw)
        return self._first(payload, objlen, objlen), border

    def values(self, raw: Any) -> memoryview:
        """The basket's values; entry offsets, often a quarter of the data, are not looked at."""
        payload, objlen, border = _parts(raw)
        return self._first(payload, border, objlen)

    def _first(self, payload: Any, wanted: int, objlen: int) -> memoryview:
        """The first ``wanted`` of the ``objlen`` bytes of a basket."""
        if len(payload) == objlen:
            return memoryview(payload)[:wanted]
        place = 0
        total = 0
        while total < wanted:
            # 9 bytes: algorithm, method, compressed and uncompressed size (24 bits, little-endian)
            header = bytes(payload[place : place + 9])
            if len(header) < 9:
                raise ValueError(f"a basket ends after {total} of {objlen} bytes")
            num_compressed = int.from_bytes(header[3:6], "little")
            num_uncompressed = int.from_bytes(header[6:9], "little")
            block = payload[place + 9 : place + 9 + num_compressed]
            if len(block) < num_compressed or num_uncompressed > objlen - total:
                raise ValueError(f"a compressed block exceeds its basket of {objlen} bytes")
            needed = min(num_uncompressed, wanted - total)
            piece = self._block(header[:2], block, num_uncompressed, needed, total, objlen)
            if needed == wanted:  # nearly always: a block holds up to 16 MiB
                return piece[:needed]
            self._space(total, needed, objlen)[:] = piece[:needed]
            place += 9 + num_compressed
            total += num_uncompressed
        return self._space(0, wanted, objlen)

    def _block(
        self, algorithm: bytes, block: Any, size: int, needed: int, start: int, objlen: int
    ) -> memoryview:
        """At least the first ``needed`` of the ``size`` bytes of a block."""
        if algorithm == b"ZL":  # all of it: its checksum stands at the end
            piece = memoryview(deflate.zlib_decompress(block, size))
        elif algorithm == b"ZS":
            size = size if _has_checksum(block) else needed
            target = self._space(start, size, objlen)
            with self._zstd.stream_reader(block, read_size=len(block)) as stream:
                piece = target[: stream.readinto(target)]
        elif algorithm == b"L4":
            # The function of xxhash that does this in one go takes half as long again.
            if xxhash.xxh64(block[8:]).intdigest() != int.from_bytes(block[:8], "big"):
                raise ValueError("the checksum of an lz4 block does not match")
            target = self._space(start, size, objlen)
            piece = target[: cramjam.lz4.decompress_block_into(block[8:], target)]
        else:
            raise UnsupportedBasketError(f"compression {algorithm!r}")
        if len(piece) != size:
            raise ValueError(f"{len(piece)} bytes uncompressed, expected {size}")
        return piece

    def _space(self, start: int, size: int, objlen: int) -> memoryview:
        if len(self._buffer) < objlen:
            self._buffer = np.empty(objlen, dtype=np.uint8)
        return self._buffer.data[start : start + size]


def _parts(raw: Any) -> tuple[Any, int, int]:
    """A basket's payload, the length of its data, and of the values at their beginning."""
    nbytes, _, objlen, _, keylen = _KEY.unpack_from(raw)
    border = _BASKET.unpack_from(raw, keylen - _BASKET_HEADER)[4] - keylen
    if not 0 <= border <= objlen:
        raise UnsupportedBasketError("the values' length lies outside the basket")
    return raw[keylen:nbytes], objlen, border


def _has_checksum(frame: Any) -> bool:
    """True for a zstd frame whose content is followed by its checksum (RFC 8878, 3.1.1.1)."""
    return len(frame) > 4 and bool(frame[4] & 0x04)
