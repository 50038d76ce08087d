"""Decodes TTree baskets straight into native arrays, which awkward then never has to copy.

uproot finds the baskets and knows what they hold; this module only moves their bytes. Anything
that is not a plain number, or a list of them counted by another branch, is left to uproot.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import uproot
from numpy.typing import NDArray

from mlaas4hep_dask.events.events import Branch, offsets_of
from mlaas4hep_dask.reader.access import heard
from mlaas4hep_dask.reader.joins import Agreement
from mlaas4hep_dask.reader.metered import note
from mlaas4hep_dask.reader.places import BasketTable
from mlaas4hep_dask.reader.uncompress import (
    Basket,
    Uncompress,
    UnsupportedBasketError,
    find_basket,
    find_embedded,
)
from mlaas4hep_dask.specs.meter import Meter, Watch

MERGE_GAP = 64 * 1024  # bytes between two ranges that are fetched as one
MERGE_LIMIT = 8 * 1024 * 1024  # bytes fetched at once: XRootD's client joins longer answers slowly
SIZES = (1, 2, 4, 8)  # bytes of a value
_COUNTS = np.dtype(">i4")  # of a TClonesArray or a vector that was split into sub-branches
MAX_MULTIPLICITY = 2**31 - 1  # a basket has fewer bytes; sums of more could leave 64 bits


def basket_table(
    branch: Any, counter: str | None, known_entries: dict[bytes, NDArray[np.int64]]
) -> BasketTable | None:
    """Table of a TBranch, or None when uproot shall read it.

    Parameters
    ----------
    branch : uproot.TBranch
        Holds one number, or a list of them, per entry; or the multiplicities of its sub-branches.
    counter : str or None
        What holds its multiplicities.
    known_entries : dict
        Entries of the tables that were made before, by their bytes.
    """
    dtype = _COUNTS if len(branch.branches) else _dtype(branch, counter)
    if dtype is None or len(branch.member("fLeaves")) != 1:
        return None
    places = [basket.cursor.index for basket in branch.embedded_baskets]
    num = branch.num_baskets - len(places)
    entries = np.asarray(branch.entry_offsets, dtype=np.int64)
    seeks = np.asarray(branch.member("fBasketSeek")[:num], dtype=np.int64)
    sizes = np.asarray(branch.member("fBasketBytes")[:num], dtype=np.int64)
    if places:
        seeks = np.append(seeks, places)
        sizes = np.append(sizes, np.zeros(len(places), dtype=np.int64))
    return BasketTable(
        seeks,
        sizes,
        known_entries.setdefault(entries.tobytes(), entries),
        dtype,
        counter,
        len(places),
    )


def _dtype(branch: Any, counter: str | None) -> np.dtype[Any] | None:
    """Of the numbers as they stand in the baskets."""
    interpretation = branch.interpretation
    if isinstance(interpretation, uproot.AsJagged):
        if interpretation.header_bytes != 0 or counter is None:
            return None
        interpretation = interpretation.content
    if type(interpretation) is not uproot.AsDtype:
        return None
    dtype: np.dtype[Any] = interpretation.from_dtype
    same_values = dtype.newbyteorder("=") == interpretation.to_dtype.newbyteorder("=")
    return dtype if dtype.shape == () and dtype.itemsize in SIZES and same_values else None


def read_baskets(
    source: Any,
    tables: Mapping[str, BasketTable],
    start: int,
    stop: int,
    branches: Sequence[Branch] = (),
    meter: Meter | None = None,
    keep: Collection[str] | None = None,
    *,
    own_bytes: Callable[[], NDArray[np.uint8]] | None = None,
    agreement: Agreement | None = None,
) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[np.int64]]]:
    """Contents of every branch, and offsets by counter, of the entries [start, stop).

    ``tables`` holds the counters of all jagged branches too. ``meter`` measures those of
    ``branches`` that are read; contents are given only of those that are in ``keep``, or all.
    ``own_bytes`` gives the tree's own bytes, uncompressed; it is asked when a basket is embedded.
    ``agreement`` knows the multiplicities of the collections of ``branches``.

    Raises
    ------
    UnsupportedBasketError
        When a basket is of a kind that only uproot reads.
    DisagreementError
        When two branches of a collection have different multiplicities.
    ValueError
        When one is damaged, or its values are not as many as its branch's entries have.
    """
    flat = {name: table for name, table in tables.items() if table.counter is None}
    jagged = {name: table for name, table in tables.items() if table.counter is not None}
    fetched = _fetch(source, tables, start, stop, own_bytes)
    uncompress = Uncompress()
    num_entries = stop - start
    counters = dict.fromkeys(str(table.counter) for table in jagged.values())
    agreement = agreement or Agreement()
    counted: dict[str | None, list[Branch]] = {}
    for branch in branches:
        if branch.collection is not None and branch.name in tables:
            counted.setdefault(tables[branch.name].counter, []).append(branch)
    wanted: dict[str | None, list[Branch]] = {}  # to be measured, by their collection
    for branch in branches if meter is not None else ():
        if branch.name in tables:
            wanted.setdefault(branch.collection, []).append(branch)
    passing = set()  # not kept
    if keep is not None:
        passing = {b.name for own in wanted.values() for b in own} - {*keep, *counters}
    contents = _empty({n: (flat[n].dtype, num_entries) for n in flat if n not in passing})
    watched: dict[str, Watch] = {}
    if meter is not None and None in wanted:
        watched |= meter.watch(wanted[None], contents, None)
    for basket in fetched:
        if (name := basket.branch) not in flat:
            continue
        values, first = _read_flat(basket, uncompress, start, stop, flat[name].dtype)
        _put(values, contents.get(name), first, watched.get(name))
    offsets: dict[str, NDArray[np.int64]] = {}
    room = dict.fromkeys(counters, 0)  # bytes of the largest basket
    for basket in fetched:
        if (owner := tables[basket.branch].counter) is not None:
            room[owner] = max(room[owner], basket.size)
    for counter in counters:
        counts = contents[counter]
        if num_entries and not 0 <= counts.min() <= counts.max() <= MAX_MULTIPLICITY:
            raise UnsupportedBasketError(f"negative or huge multiplicity in {counter!r}")
        if num_entries and counts.max() > room[counter]:  # which memory would be taken for
            raise ValueError(
                f"a multiplicity of {counts.max()} in {counter!r}, and no basket has more than "
                f"{room[counter]} bytes"
            )
        offsets[counter] = offsets_of(counts)
        for branch in counted.get(counter, ()):
            offsets[counter] = agreement.of(branch, offsets[counter])
            if meter is not None:  # while they are in a cache
                meter.group(branch.collection, offsets[counter])
    ends = {name: offsets[str(table.counter)] for name, table in jagged.items()}
    contents |= _empty({n: (jagged[n].dtype, int(ends[n][-1])) for n in jagged if n not in passing})
    for collection, own in wanted.items():
        if meter is not None and collection is not None:
            watched |= meter.watch(own, contents, ends[own[0].name])
    for basket in fetched:
        if (name := basket.branch) not in jagged:
            continue
        dtype = jagged[name].dtype
        values, first = _read_jagged(basket, uncompress, start, stop, ends[name], dtype)
        _put(values, contents.get(name), first, watched.get(name))
    return contents, offsets


def _empty(wanted: Mapping[str, tuple[np.dtype[Any], int]]) -> dict[str, NDArray[Any]]:
    """Native arrays, their dtype and size as ``wanted``, in one piece of memory.

    NumPy asks the kernel for large pages when it allocates some megabytes at once. The page
    faults of many small arrays take longer than filling them.
    """
    places = {}
    total = 0
    for name, (dtype, size) in wanted.items():
        places[name] = slice(total, total + dtype.itemsize * size)
        total += -(-dtype.itemsize * size // 64) * 64  # each begins a cache line
    memory = np.empty(total + 64, dtype=np.uint8)
    memory = memory[-memory.ctypes.data % 64 :]
    return {
        name: memory[places[name]].view(dtype.newbyteorder("="))
        for name, (dtype, _) in wanted.items()
    }


def _fetch(
    source: Any,
    tables: Mapping[str, BasketTable],
    start: int,
    stop: int,
    own_bytes: Callable[[], NDArray[np.uint8]] | None,
) -> list[Basket]:
    """The baskets with entries in [start, stop), as they follow each other in the file.

    Those that are embedded come last.
    """
    wanted: list[tuple[int, int, str, int, int]] = []
    embedded: list[tuple[int, str, int, int]] = []
    found: dict[int, tuple[slice, list[int]]] = {}
    for name, table in tables.items():
        if id(table.entries) not in found:  # most tables share theirs
            if start < stop and not table.entries[0] <= start < stop <= table.entries[-1]:
                raise UnsupportedBasketError(f"the baskets of {name!r} do not cover the entries")
            numbers = table.overlapping(start, stop)
            ends = table.entries[numbers.start : numbers.stop + 1].tolist()
            found[id(table.entries)] = numbers, ends
        numbers, ends = found[id(table.entries)]
        seeks, sizes = table.seeks[numbers].tolist(), table.sizes[numbers].tolist()
        first_embedded = len(table.seeks) - table.num_embedded - numbers.start
        for i, seek in enumerate(seeks):
            if i >= first_embedded:
                embedded.append((seek, name, ends[i], ends[i + 1]))
                continue
            if seek < 0 or sizes[i] <= 0:
                raise ValueError(f"branch {name!r} has a basket of {sizes[i]} bytes at {seek}")
            wanted.append((seek, seek + sizes[i], name, ends[i], ends[i + 1]))
    wanted.sort()
    spans: list[tuple[int, int]] = []
    members: list[list[tuple[int, int, str, int, int]]] = []
    begin = end = -MERGE_LIMIT
    for one in wanted:
        if one[0] - end <= MERGE_GAP and one[1] - begin <= MERGE_LIMIT:
            end = max(end, one[1])
            spans[-1] = begin, end
            members[-1].append(one)
        else:
            begin, end = one[:2]
            spans.append((begin, end))
            members.append([one])
    chunks = source.chunks(spans, notifications=_Discard())
    fetched = []
    for chunk, (begin, _), inside in zip(chunks, spans, members, strict=True):
        content = np.ascontiguousarray(chunk.raw_data)
        heard()
        memory = content.data.cast("B").toreadonly()
        fetched += [
            find_basket(name, first, last, memory, seek - begin, seek_end - begin)
            for seek, seek_end, name, first, last in inside
        ]
    if embedded:
        if own_bytes is None:
            raise UnsupportedBasketError("the tree's own bytes are not at hand")
        memory = np.ascontiguousarray(own_bytes()).data.cast("B").toreadonly()
        fetched += [
            find_embedded(name, first, last, memory, place)
            for place, name, first, last in sorted(embedded)
        ]
    return fetched


class _Discard:
    """A queue that nobody reads: uproot's sources announce chunks, and we wait on each."""

    def put(self, item: object) -> None:
        """Drop the item."""


def _put(values: NDArray[Any], out: NDArray[Any] | None, first: int, watch: Watch | None) -> None:
    """Copy big-endian ``values`` to ``out[first:]``, and note them, where these are wanted."""
    if out is not None:
        native = out[first : first + values.size]
        native[:] = values
    elif watch is not None:
        native = values.astype(watch.drawn.dtype)
    if watch is not None:
        note(native.view(watch.drawn.dtype), first, watch)


def _read_flat(
    basket: Basket, uncompress: Uncompress, start: int, stop: int, dtype: np.dtype[Any]
) -> tuple[NDArray[Any], int]:
    """Big-endian values of a basket, and where the first of them belongs."""
    first, last = basket.first, basket.last
    values = _numbers(basket, uncompress.values(basket), dtype, last - first)
    low, high = max(first, start), min(last, stop)
    return values[low - first : high - first], low - start


def _read_jagged(
    basket: Basket,
    uncompress: Uncompress,
    start: int,
    stop: int,
    offsets: NDArray[np.int64],
    dtype: np.dtype[Any],
) -> tuple[NDArray[Any], int]:
    first, last = basket.first, basket.last
    low, high = max(first, start), min(last, stop)
    if low == first and high == last:
        data = uncompress.values(basket)
    else:  # the basket sticks out: its own offsets tell where
        whole = uncompress(basket)
        begin, end = _entry_bytes(basket, whole, last - first, low - first, high - first)
        data = whole[begin:end]
    place = int(offsets[low - start])
    return _numbers(basket, data, dtype, int(offsets[high - start]) - place), place


def _numbers(
    basket: Basket, data: memoryview, dtype: np.dtype[Any], num_values: int
) -> NDArray[Any]:
    # uproot would leave the rest of its array to chance.
    if len(data) != num_values * dtype.itemsize:
        raise ValueError(
            f"{basket}: {len(data)} bytes of values, expected {num_values} of {dtype.itemsize}"
        )
    return np.frombuffer(data, dtype=dtype)


def _entry_bytes(
    basket: Basket, data: memoryview, num_entries: int, low: int, high: int
) -> tuple[int, int]:
    # int32: the number of entries + 1, the byte offset of each entry counted from the key, 0.
    if len(data) - basket.border < 4 * (num_entries + 1):
        raise UnsupportedBasketError("no entry offsets")
    stored = np.frombuffer(data, ">i4", num_entries + 1, basket.border)
    ends = np.append(stored[1:] - basket.keylen, basket.border)
    begin, end = int(ends[low]), int(ends[high])
    if not 0 <= begin <= end <= basket.border:
        raise ValueError(f"{basket}: offsets {begin}-{end} in its {basket.border} bytes of values")
    return begin, end
