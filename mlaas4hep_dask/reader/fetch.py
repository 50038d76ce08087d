"""Fetches the bytes of baskets: from servers in few requests, from this machine piece by piece."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlaas4hep_dask.reader.access import heard
from mlaas4hep_dask.reader.local import LocalSource, Window
from mlaas4hep_dask.reader.places import BasketTable
from mlaas4hep_dask.reader.uncompress import (
    Basket,
    UnsupportedBasketError,
    find_basket,
    find_embedded,
)


class Merging(NamedTuple):
    """Which baskets are fetched together.

    Parameters
    ----------
    gap : int
        Most bytes between two of them.
    most : int
        Bytes fetched at once from a server: XRootD's client joins longer answers slowly.
    most_here : int
        Likewise from this machine: what is copied stays in the processor's caches until it has
        been uncompressed.
    """

    gap: int = 64 * 1024
    most: int = 8 * 1024 * 1024
    most_here: int = 1024 * 1024


MERGING = Merging()


class _Place(NamedTuple):
    """Where the basket with the entries [first, last) of a branch lies."""

    start: int  # in the file, or in the tree's own bytes
    stop: int
    branch: str
    first: int
    last: int


class Fetched:
    """The baskets of some tables with entries in [start, stop).

    What lies on a server is fetched at once, what lies on this machine when `baskets` comes to it.

    Parameters
    ----------
    source : uproot.source.chunk.Source
        Has the file's bytes.
    tables : mapping of str to BasketTable
        By branch.
    start, stop : int
        Entries.
    own_bytes : callable or None
        Gives the tree's own bytes; it is called when a basket is embedded.
    merging : Merging
        Which baskets are fetched together.

    Raises
    ------
    UnsupportedBasketError
        When the tables have no baskets for some of the entries.
    ValueError
        When a basket lies nowhere.
    """

    def __init__(
        self,
        source: Any,
        tables: Mapping[str, BasketTable],
        start: int,
        stop: int,
        own_bytes: Callable[[], NDArray[np.uint8]] | None,
        *,
        merging: Merging = MERGING,
    ) -> None:
        self._merging = merging
        self._places, self._embedded = _places(tables, start, stop)
        self._window = Window(source) if isinstance(source, LocalSource) else None
        self._fetched: list[tuple[int, list[_Place], memoryview]] = []
        if self._window is None:
            stretches = _stretches(self._places, merging.gap, merging.most)
            spans = [(begin, end) for begin, end, _ in stretches]
            chunks = source.chunks(spans, notifications=_Discard())
            for (begin, _, piece), chunk in zip(stretches, chunks, strict=True):
                memory = np.ascontiguousarray(chunk.raw_data).data  # it waits for them
                self._fetched.append((begin, piece, memory.cast("B").toreadonly()))
                heard()
        self._tree_bytes = memoryview(b"")
        if self._embedded:
            if own_bytes is None:
                raise UnsupportedBasketError("the tree's own bytes are not at hand")
            self._tree_bytes = np.ascontiguousarray(own_bytes()).data.cast("B").toreadonly()

    def baskets(self, branches: Container[str]) -> Iterator[Basket]:
        """Those of some branches, as they follow each other in the file; embedded ones come last.

        A basket is valid until the next is asked for.

        Raises
        ------
        UnsupportedBasketError
            When a basket is of a kind that only uproot reads.
        ValueError
            When one is not whole.
        """
        for begin, places, memory in self._pieces(branches):
            for place, end, branch, first, last in places:
                if branch in branches:
                    yield find_basket(branch, first, last, memory, place - begin, end - begin)
        for place, _, branch, first, last in self._embedded:
            if branch in branches:
                yield find_embedded(branch, first, last, self._tree_bytes, place)

    def _pieces(self, branches: Container[str]) -> Iterator[tuple[int, list[_Place], memoryview]]:
        """Where pieces begin, their baskets, among them all of these branches, and their bytes."""
        if self._window is None:
            yield from self._fetched
            return
        places = [place for place in self._places if place.branch in branches]
        for begin, end, piece in _stretches(places, self._merging.gap, self._merging.most_here):
            yield begin, piece, self._window.read(begin, end)

    def room(self, branches: Container[str], least: int = 0) -> int:
        """Bytes of the largest basket of some branches, or fewer if these are ``least`` or more.

        Raises as `baskets` does.
        """
        # Few values are smaller than their compressed bytes, which need no look at the basket.
        sizes = [place.stop - place.start for place in self._places if place.branch in branches]
        largest = max(sizes, default=0)
        if largest >= least:
            return largest
        return max((basket.size for basket in self.baskets(branches)), default=0)


def _places(
    tables: Mapping[str, BasketTable], start: int, stop: int
) -> tuple[list[_Place], list[_Place]]:
    """Baskets with entries in [start, stop), in the file and embedded, in the order of bytes."""
    places: list[_Place] = []
    embedded: list[_Place] = []
    ranges: dict[int, tuple[slice, list[int]]] = {}
    for name, table in tables.items():
        if id(table.entries) not in ranges:  # most tables share theirs
            if start < stop and not table.entries[0] <= start < stop <= table.entries[-1]:
                raise UnsupportedBasketError(f"the baskets of {name!r} do not cover the entries")
            numbers = table.overlapping(start, stop)
            ends = table.entries[numbers.start : numbers.stop + 1].tolist()
            ranges[id(table.entries)] = numbers, ends
        numbers, ends = ranges[id(table.entries)]
        seeks, sizes = table.seeks[numbers].tolist(), table.sizes[numbers].tolist()
        first_embedded = len(table.seeks) - table.num_embedded - numbers.start
        for i, seek in enumerate(seeks):
            place = _Place(seek, seek + sizes[i], name, ends[i], ends[i + 1])
            if i >= first_embedded:
                embedded.append(place)
                continue
            if seek < 0 or sizes[i] <= 0:
                raise ValueError(f"branch {name!r} has a basket of {sizes[i]} bytes at {seek}")
            places.append(place)
    return sorted(places), sorted(embedded)


def _stretches(
    places: Sequence[_Place], gap: int, most: int
) -> list[tuple[int, int, list[_Place]]]:
    """Where places that lie together begin and end: ``most`` bytes, or one basket that has more."""
    stretches: list[tuple[int, int, list[_Place]]] = []
    begin = end = 0
    together: list[_Place] = []
    for place in places:
        if together and place.start - end <= gap and place.stop - begin <= most:
            together.append(place)
            end = max(end, place.stop)
            continue
        if together:
            stretches.append((begin, end, together))
        begin, end, together = place.start, place.stop, [place]
    if together:
        stretches.append((begin, end, together))
    return stretches


class _Discard:
    """A queue that nobody reads: uproot's sources announce chunks, and we wait on each."""

    def put(self, item: object) -> None:
        """Drop the item."""
