"""Specs of many branches in a few arrays, which merge and travel faster than objects do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlaas4hep_dask.errors import SpecsError
from mlaas4hep_dask.events.events import Branch
from mlaas4hep_dask.specs.branch import BranchSpecs, group_of
from mlaas4hep_dask.specs.draw import Draw, merge_draws
from mlaas4hep_dask.specs.exact import Sums
from mlaas4hep_dask.specs.moments import Moments, from_row, merge_rows, to_row


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """Drawn values of the branches of one group and dtype.

    Parameters
    ----------
    group : str
        The group; see `BranchSpecs.group`.
    rows : tuple of int
        Which branches of the table they are.
    values : ndarray, shape (len(rows), drawn)
        Their values.
    """

    group: str
    rows: tuple[int, ...]
    values: NDArray[Any]


class BranchTable(Mapping[str, BranchSpecs]):
    """`BranchSpecs` by name, each made when it is asked for.

    Parameters
    ----------
    branches : sequence of Branch
        The branches.
    numbers : ndarray of float64, shape (branches + len(transformed), 8)
        Rows of moments, see `to_row`: those of the branches, then those of logarithms.
    drawn : sequence of Drawn
        Values that were drawn; every branch is in one of them.
    transformed : sequence of (int, str)
        The branch, by number, and the logarithm of each further row of ``numbers``.
    sums : sequence of Sums or None, optional
        For each row of ``numbers`` the exact sums of what was merged, if it was.
    """

    def __init__(
        self,
        branches: Sequence[Branch],
        numbers: NDArray[np.float64],
        drawn: Sequence[Drawn],
        transformed: Sequence[tuple[int, str]] = (),
        sums: Sequence[Sums | None] | None = None,
    ) -> None:
        self.branches = tuple(branches)
        self.numbers = numbers
        self.drawn = tuple(drawn)
        self.transformed = tuple(transformed)
        self.sums = [None] * len(numbers) if sums is None else list(sums)
        self._rows = {branch.name: row for row, branch in enumerate(self.branches)}
        self._entries_by_name: dict[str, BranchSpecs] = {}

    @classmethod
    def of(cls, entries: Mapping[str, BranchSpecs]) -> BranchTable:
        """The table of some specs."""
        if isinstance(entries, cls):
            return entries
        rows: dict[tuple[Any, ...], list[int]] = {}
        for row, entry in enumerate(entries.values()):
            key = entry.group, entry.drawn.dtype, entry.drawn.size
            rows.setdefault(key, []).append(row)
        listed = list(entries.values())
        logarithms = [
            (row, key, moments)
            for row, entry in enumerate(listed)
            for key, moments in sorted(entry.transformed.items())
        ]
        parts = [entry.moments for entry in listed] + [moments for _, _, moments in logarithms]
        return cls(
            [entry.branch for entry in listed],
            np.array([to_row(part) for part in parts]).reshape(-1, 8),
            [
                Drawn(group, tuple(members), np.stack([listed[row].drawn for row in members]))
                for (group, _, _), members in rows.items()
            ],
            [(row, key) for row, key, _ in logarithms],
            [part.sums for part in parts],
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return BranchTable, (self.branches, self.numbers, self.drawn, self.transformed, self.sums)

    def __len__(self) -> int:
        return len(self.branches)

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __getitem__(self, name: str) -> BranchSpecs:
        if name in self._rows and not self._entries_by_name:
            self._entries_by_name = self._entries()
        return self._entries_by_name[name]

    def _entries(self) -> dict[str, BranchSpecs]:
        values_of_row = {
            row: values
            for block in self.drawn
            for row, values in zip(block.rows, block.values, strict=True)
        }
        logarithms: dict[int, dict[str, Moments]] = {}
        for place, (row, key) in enumerate(self.transformed, len(self.branches)):
            moments = from_row(self.numbers[place], self.sums[place])
            logarithms.setdefault(row, {})[key] = moments
        return {
            branch.name: BranchSpecs(
                branch,
                from_row(self.numbers[row], self.sums[row]),
                values_of_row[row],
                logarithms.get(row, {}),
            )
            for row, branch in enumerate(self.branches)
        }

    def __contains__(self, name: object) -> bool:
        return name in self._rows

    @property
    def nbytes(self) -> int:
        """Bytes of the drawn values."""
        return sum(block.values.nbytes for block in self.drawn)

    def in_order_of(self, other: BranchTable) -> BranchTable:
        """The same specs, laid out as those of another table of the same branches.

        Raises
        ------
        SpecsError
            When the two hold different branches, or one branch with different types.
        """
        if self.branches == other.branches and [*map(_layout, self.drawn)] == [
            *map(_layout, other.drawn)
        ]:
            return self
        if self.keys() != other.keys():
            odd = sorted(self.keys() ^ other.keys())
            raise SpecsError(f"specs of different branches cannot be merged: {odd}", branch=odd[0])
        for branch in other.branches:
            there = self.branches[self._rows[branch.name]]
            if not branch.same_shape(there):
                raise SpecsError(
                    f"branch {branch.name!r} is {branch.described()} in one part and "
                    f"{there.described()} in another",
                    branch=branch.name,
                )
        return BranchTable.of({name: self[name] for name in other})


def _layout(block: Drawn) -> tuple[Any, ...]:
    return block.group, block.rows, block.values.dtype


def merge_tables(
    tables: Sequence[BranchTable], draws: Sequence[Mapping[str, Draw]]
) -> tuple[BranchTable, dict[str, Draw]]:
    """The specs of all parts, and the draws of their values.

    Parameters
    ----------
    tables : sequence of BranchTable
        Those of the parts, at least one; with the same branches.
    draws : sequence of mapping of str to Draw
        For each part, by group: which values were drawn.

    Raises
    ------
    SpecsError
        When they hold different branches, or one branch with different types.
    """
    first = tables[0]
    tables = [table.in_order_of(first) for table in tables]
    merged: dict[str, Draw] = {}
    orders: dict[str, NDArray[np.intp]] = {}
    for group in sorted({group for part in draws for group in part}):
        merged[group], orders[group] = merge_draws([part.get(group, Draw()) for part in draws])
    shared = [key for key in first.transformed if all(key in t.transformed for t in tables)]
    parts, sums = [], []
    for table in tables:
        rows = [*range(len(first)), *(len(first) + table.transformed.index(key) for key in shared)]
        parts.append(table.numbers[rows] if table.transformed else table.numbers)
        sums.append([table.sums[row] for row in rows])
    numbers, exact = merge_rows(parts, sums)
    blocks = [
        Drawn(
            each.group,
            each.rows,
            _picked([table.drawn[block].values for table in tables], orders.get(each.group)),
        )
        for block, each in enumerate(first.drawn)
    ]
    return BranchTable(first.branches, numbers, blocks, shared, exact), merged


def _picked(parts: Sequence[NDArray[Any]], order: NDArray[np.intp] | None) -> NDArray[Any]:
    """Some columns of several matrices, counted from the first of all, ascending."""
    size = 0 if order is None else order.size
    picked = np.empty((parts[0].shape[0], size), dtype=parts[0].dtype)
    if order is None or not size:
        return picked
    ends = np.cumsum([0, *(part.shape[1] for part in parts)])
    places = np.searchsorted(order, ends).tolist()
    for part, begin, start, stop in zip(parts, ends.tolist(), places, places[1:], strict=False):
        picked[:, start:stop] = part[:, order[start:stop] - begin]
    return picked


def group_rows(branches: Sequence[Branch]) -> dict[tuple[str, str], list[int]]:
    """Numbers of the branches by their group and dtype."""
    rows: dict[tuple[str, str], list[int]] = {}
    for row, branch in enumerate(branches):
        rows.setdefault((group_of(branch), branch.dtype), []).append(row)
    return rows
