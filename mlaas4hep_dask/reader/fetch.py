"""Fetches the bytes of baskets, in few requests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlaas4hep_dask.reader.access import heard
from mlaas4hep_dask.reader.places import BasketTable
from mlaas4hep_dask.reader.uncompress import (
    Basket,
    UnsupportedBasketError,
    find_basket,
    find_embedded,
)

MERGE_GAP = 64 * 1024  # bytes between two ranges that are fetched as one
MERGE_LIMIT = 8 * 1024 * 1024  # bytes fetched at once: XRootD's client joins longer answers slowly


def fetch(
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
