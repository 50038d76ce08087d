"""Decodes TTree baskets straight into native arrays, which awkward then never has to copy.

uproot finds the baskets and knows what they hold; this module only moves their bytes. Anything
but numbers, arrays of a fixed length, and lists of them that another branch or a vector's own head
counts, is left to uproot.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import uproot
from numpy.typing import NDArray

from mlaas4hep_dask.events.events import Branch, offsets_of
from mlaas4hep_dask.reader.cells import cell_of, truths
from mlaas4hep_dask.reader.fetch import Fetched
from mlaas4hep_dask.reader.joins import Agreement
from mlaas4hep_dask.reader.lists import Lists, entry_ends, lists_in
from mlaas4hep_dask.reader.metered import note
from mlaas4hep_dask.reader.places import BasketTable
from mlaas4hep_dask.reader.uncompress import (
    Basket,
    Uncompress,
    UnsupportedBasketError,
)
from mlaas4hep_dask.specs.meter import Meter, Watch

_COUNTS = uproot.AsDtype(">i4")  # of a TClonesArray or a vector that was split into sub-branches
MAX_MULTIPLICITY = 2**31 - 1  # a basket has fewer bytes; sums of more could leave 64 bits


def basket_table(
    branch: Any,
    counter: str | None,
    known_entries: dict[bytes, NDArray[np.int64]],
    *,
    key: str = "",
    steps: Sequence[str | int] = (),
    interpretation: Any = None,
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
    key : str
        Of the TBranch, where ``steps`` lead to one of several numbers that it holds.
    steps : sequence of str or int
        Names of leaves and numbers of elements.
    interpretation : uproot.interpretation.Interpretation or None
        What its bytes mean, where uproot is not right about it by itself.
    """
    meaning = interpretation
    if meaning is None:
        meaning = _COUNTS if len(branch.branches) else branch.interpretation
    layout = cell_of(meaning, key, steps)
    if layout is None or (len(branch.member("fLeaves")) != 1 and not steps):
        return None
    cell, dtype = layout
    if isinstance(meaning, uproot.AsJagged) == (counter is None and not cell.head):
        return None
    if cell.head and counter is not None:
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
        cell,
    )


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
    flat = {name: table for name, table in tables.items() if not table.is_jagged}
    jagged = {name: table for name, table in tables.items() if table.is_jagged}
    # The numbers of one TBranch are in the same baskets, which bear the name of the first.
    together: dict[tuple[bool, str], list[str]] = {}
    for name, table in tables.items():
        holder = table.cell.holder
        together.setdefault((bool(holder), holder or name), []).append(name)
    inside = {names[0]: names for names in together.values()}
    fetched = Fetched(source, {name: tables[name] for name in inside}, start, stop, own_bytes)
    uncompress = Uncompress()
    num_entries = stop - start
    counter_of = {name: table.counter or name for name, table in jagged.items()}
    counters = dict.fromkeys(str(t.counter) for t in jagged.values() if t.counter is not None)
    agreement = agreement or Agreement()
    counted: dict[str, list[Branch]] = {}
    for branch in branches:
        if branch.collection is not None and branch.name in tables:
            counted.setdefault(counter_of[branch.name], []).append(branch)
    by_collection: dict[str | None, list[Branch]] = {}  # to be measured, by their collection
    for branch in branches if meter is not None else ():
        if branch.name in tables and tables[branch.name].number == branch.dtype:
            by_collection.setdefault(branch.collection, []).append(branch)
    passing = set()  # not kept
    if keep is not None:
        passing = {b.name for each in by_collection.values() for b in each} - {*keep, *counters}
    contents = _empty({n: (flat[n].dtype, num_entries) for n in flat if n not in passing})
    watched: dict[str, Watch] = {}
    if meter is not None and None in by_collection:
        watched |= meter.watch(by_collection[None], contents, None)
    for basket in fetched.baskets(flat):
        first, last = basket.first, basket.last
        data, (low, high) = uncompress.values(basket), _within(basket, start, stop)
        for name in inside[basket.branch]:
            values = _numbers(basket, data, flat[name], last - first)
            if high - low < last - first:
                values = values[low - first : high - first]
            _put(values, contents.get(name), low - start, watched.get(name))
    offsets: dict[str, NDArray[np.int64]] = {}
    for counter in counters:
        multiplicities = contents[counter]
        most = int(multiplicities.max(initial=0))
        if not 0 <= multiplicities.min(initial=0) <= most <= MAX_MULTIPLICITY:
            raise UnsupportedBasketError(f"negative or huge multiplicity in {counter!r}")
        counting = {name for name in inside if tables[name].counter == counter}
        if most > (room := fetched.room(counting, most)):  # memory would be taken for it
            raise ValueError(
                f"a multiplicity of {most} in {counter!r}, and no basket has more than {room} bytes"
            )
        offsets[counter] = offsets_of(multiplicities)
    lists: dict[str, list[Lists]] = {n: [] for n, table in jagged.items() if table.cell.head}
    for basket in fetched.baskets(lists):
        lists_of_basket = lists_in(basket, uncompress(basket), tables[basket.branch].dtype)
        lists[basket.branch].append(lists_of_basket.within(*_within(basket, start, stop)))
    for name, parts in lists.items():
        parts.sort(key=lambda each: each.first)
        multiplicities = np.concatenate(
            [np.empty(0, np.int64), *(each.multiplicities for each in parts)]
        )
        offsets[name] = offsets_of(multiplicities)
    for counter, branches_of_counter in counted.items():
        for branch in branches_of_counter:
            offsets[counter] = agreement.of(branch, offsets[counter])
            if meter is not None:  # while they are in a cache
                meter.group(branch.collection, offsets[counter])
    ends = {name: offsets[counter] for name, counter in counter_of.items()}
    contents |= _empty({n: (jagged[n].dtype, int(ends[n][-1])) for n in jagged if n not in passing})
    for collection, measured in by_collection.items():
        if meter is not None and collection is not None:
            watched |= meter.watch(measured, contents, ends[measured[0].name])
    for name, parts in lists.items():
        for each in parts:
            place = int(ends[name][each.first - start])
            _put(each.values, contents.get(name), place, watched.get(name))
    for basket in fetched.baskets({name for name in inside if tables[name].counter}):
        data, (low, high) = _between(basket, uncompress, start, stop)
        for name in inside[basket.branch]:
            entries = ends[name]
            place, end = entries.item(low - start), entries.item(high - start)
            values = _numbers(basket, data, jagged[name], end - place)
            _put(values, contents.get(name), place, watched.get(name))
    return contents, offsets


def _empty(dtypes_and_sizes: Mapping[str, tuple[np.dtype[Any], int]]) -> dict[str, NDArray[Any]]:
    """Native arrays of these dtypes and sizes, in one piece of memory.

    NumPy asks the kernel for large pages when it allocates some megabytes at once. The page
    faults of many small arrays take longer than filling them.
    """
    dtypes = {dtype for dtype, _ in dtypes_and_sizes.values()}
    native = {dtype: dtype.newbyteorder("=") for dtype in dtypes}
    total = sum(-(-dtype.itemsize * size // 64) for dtype, size in dtypes_and_sizes.values()) * 64
    memory = np.empty(total + 64, dtype=np.uint8)
    place = -memory.ctypes.data % 64
    arrays = {}
    for name, (dtype, size) in dtypes_and_sizes.items():
        arrays[name] = np.ndarray((size,), native[dtype], memory, place)
        place += -(-dtype.itemsize * size // 64) * 64  # each begins a cache line
    return arrays


def _put(values: NDArray[Any], out: NDArray[Any] | None, first: int, watch: Watch | None) -> None:
    """Copy big-endian ``values`` to ``out[first:]``, and note them, where these are wanted."""
    values = truths(values)
    if out is not None:
        out[first : first + values.size] = values
    if watch is not None:
        dtype = watch.drawn.dtype
        native = values.astype(dtype) if out is None else out[first : first + values.size]
        note(native.view(dtype), first, watch)


def _within(basket: Basket, start: int, stop: int) -> tuple[int, int]:
    """The entries of a basket that are asked for."""
    first, last = basket.first, basket.last
    return start if first < start else first, stop if last > stop else last


def _between(
    basket: Basket, uncompress: Uncompress, start: int, stop: int
) -> tuple[memoryview, tuple[int, int]]:
    """The values of the entries of a basket that are asked for, and these."""
    first, last = basket.first, basket.last
    if start <= first and last <= stop:
        return uncompress.values(basket), (first, last)
    low, high = _within(basket, start, stop)
    whole = uncompress(basket)  # the basket sticks out: its own offsets tell where
    begin, end = entry_ends(basket, whole)[[low - first, high - first]].tolist()
    return whole[begin:end], (low, high)


def _numbers(basket: Basket, data: memoryview, table: BasketTable, num_values: int) -> NDArray[Any]:
    """Big-endian numbers."""
    dtype, cell = table.dtype, table.cell
    stride = cell.stride or dtype.itemsize
    # uproot would leave the rest of its array to chance.
    if len(data) != num_values * stride:
        raise ValueError(
            f"{basket}: {len(data)} bytes of values, expected {num_values} of {stride}"
        )
    if num_values == 0:
        return np.empty(0, dtype)
    return np.ndarray((num_values,), dtype, data, cell.offset, (stride,))
