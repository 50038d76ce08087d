"""Where baskets lie, in a form that travels: nobody else has to look into their tree then."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import zstandard
from numpy.typing import NDArray

from mlaas4hep_dask.reader.cells import PLAIN, Cell

_INT = np.dtype("<i8")


@dataclass(frozen=True, slots=True)
class BasketTable:
    """Where the baskets of one branch lie.

    ``seeks`` and ``sizes`` are bytes, shape (baskets,); ``entries``, shape (baskets + 1,), are
    the entries at which they begin and the last one ends. ``counter`` is the branch that holds
    the multiplicities of a jagged one, unless it counts itself. The last ``num_embedded`` baskets
    lie in the tree's own bytes, uncompressed: there are their ``seeks``, and their ``sizes`` are 0.
    ``cell`` tells where the number stands in what they hold.
    """

    seeks: NDArray[np.int64]
    sizes: NDArray[np.int64]
    entries: NDArray[np.int64]
    dtype: np.dtype[Any]
    counter: str | None
    num_embedded: int = 0
    cell: Cell = PLAIN

    @property
    def is_jagged(self) -> bool:
        """True when entries have lists."""
        return self.counter is not None or self.cell.head > 0

    @property
    def number(self) -> str:
        """The name of the dtype in memory."""
        return str(self.dtype.newbyteorder("=").name)

    def overlapping(self, start: int, stop: int) -> slice:
        """Numbers of the baskets with entries in [start, stop)."""
        first = int(self.entries.searchsorted(start, side="right")) - 1
        last = int(self.entries.searchsorted(stop, side="left"))
        return slice(max(first, 0), min(last, len(self.seeks)))


def whole_baskets(tables: Mapping[str, BasketTable], start: int, stop: int) -> tuple[int, int]:
    """The fewest entries around [start, stop) in which no basket of lists with a counter ends."""
    while True:
        low, high = start, stop
        for table in tables.values():
            if table.counter is not None:
                inside = table.overlapping(start, stop)
                low = min(low, int(table.entries[inside.start]))
                high = max(high, int(table.entries[inside.stop]))
        if (low, high) == (start, stop):
            return low, high
        start, stop = low, high


@dataclass(frozen=True, slots=True)
class Places:
    """Tables of baskets as they travel with a partition: some 7 bytes for each basket.

    Parameters
    ----------
    columns : bytes
        Names, types and counters of the branches, packed; the partitions of a file share them.
    numbers : bytes
        The tables' numbers, packed.
    """

    columns: bytes
    numbers: bytes

    @classmethod
    def of(cls, tables: Mapping[str, BasketTable]) -> Places:
        """The tables, which have the counters of jagged branches among them."""
        groups: dict[tuple[int, int], list[str]] = {}  # branches whose baskets end together
        for name, table in tables.items():
            groups.setdefault((id(table.entries), table.num_embedded), []).append(name)
        columns = [
            [(name, t.dtype.str, t.counter, *_shortened(t.cell)) for name, t in each]
            for each in ([(name, tables[name]) for name in names] for names in groups.values())
        ]
        packed = [
            _Group(
                tables[names[0]].entries,
                num_embedded,
                np.stack([tables[name].seeks for name in names]),
                np.stack([tables[name].sizes for name in names]),
            )
            for (_, num_embedded), names in groups.items()
        ]
        return cls(_zipped(json.dumps(columns).encode()), _packed(packed))

    def __len__(self) -> int:
        """Bytes that it has."""
        return len(self.columns) + len(self.numbers)

    def parts(self, ranges: Sequence[tuple[int, int]]) -> list[Places]:
        """By half-open range of entries: the baskets that hold them."""
        groups = _unpacked(self.numbers, _num_branches(self.columns))
        return [
            replace(self, numbers=_packed([group.part(start, stop) for group in groups]))
            for start, stop in ranges
        ]

    def tables(self) -> dict[str, BasketTable]:
        """The tables by the names of their branches."""
        columns = _columns(self.columns)
        groups = _unpacked(self.numbers, _num_branches(self.columns))
        return {
            name: BasketTable(
                group.seeks[row],
                group.sizes[row],
                group.entries,
                dtype,
                counter,
                group.num_embedded,
                cell,
            )
            for names, group in zip(columns, groups, strict=True)
            for row, (name, dtype, counter, cell) in enumerate(names)
        }


@dataclass(frozen=True, slots=True)
class _Group:
    """Tables that share their entries; ``seeks`` and ``sizes`` are of shape (branches, baskets)."""

    entries: NDArray[np.int64]
    num_embedded: int
    seeks: NDArray[np.int64]
    sizes: NDArray[np.int64]

    def part(self, start: int, stop: int) -> _Group:
        first = max(int(self.entries.searchsorted(start, side="right")) - 1, 0)
        last = min(int(self.entries.searchsorted(stop, side="left")), self.seeks.shape[1])
        last = max(first, last)
        return _Group(
            self.entries[first : last + 1],
            max(0, min(self.num_embedded - (self.seeks.shape[1] - last), last - first)),
            self.seeks[:, first:last],
            self.sizes[:, first:last],
        )


def _packed(groups: Sequence[_Group]) -> bytes:
    numbers = []
    for group in groups:
        head = np.array([group.num_embedded, len(group.entries)], dtype=_INT)
        numbers += [head, group.entries, group.seeks.ravel(), group.sizes.ravel()]
    joined = np.concatenate(numbers) if numbers else np.empty(0, dtype=_INT)
    # Equal bytes of the numbers stand together: most of them are 0.
    return _zipped(joined.astype(_INT).view(np.uint8).reshape(-1, _INT.itemsize).T.tobytes())


def _unpacked(content: bytes, num_branches: Sequence[int]) -> list[_Group]:
    turned = np.frombuffer(_unzipped(content), dtype=np.uint8)
    numbers = np.ascontiguousarray(turned.reshape(_INT.itemsize, -1).T).view(_INT).ravel()
    numbers = numbers.astype(np.int64, copy=False)
    groups = []
    place = 0
    for num in num_branches:
        num_embedded, num_entries = numbers[place : place + 2].tolist()
        place += 2
        size = num * (num_entries - 1)
        entries = numbers[place : place + num_entries]
        place += num_entries
        seeks, sizes = (
            numbers[begin : begin + size].reshape(num, -1) for begin in (place, place + size)
        )
        place += 2 * size
        groups.append(_Group(entries, num_embedded, seeks, sizes))
    return groups


def _shortened(cell: Cell) -> tuple[str | int, ...]:
    """Nothing for the plain one, which nearly all are."""
    return () if cell == PLAIN else tuple(cell)


_Column = tuple[str, np.dtype[np.generic], str | None, Cell]


@lru_cache(maxsize=8)
def _columns(content: bytes) -> list[list[_Column]]:
    groups: list[list[list[Any]]] = json.loads(_unzipped(content))
    return [
        [(name, np.dtype(dtype), counter, Cell(*cell)) for name, dtype, counter, *cell in group]
        for group in groups
    ]


def _num_branches(content: bytes) -> list[int]:
    return list(map(len, _columns(content)))


def _zipped(content: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(content)


def _unzipped(content: bytes) -> bytes:
    return zstandard.ZstdDecompressor().decompress(content)
