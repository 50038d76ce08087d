"""Layout: which column of a dense row holds which value of an event."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mlaas4hep_dask.specs import Specs


@dataclass(frozen=True, slots=True)
class JaggedBranch:
    """A jagged branch padded to ``width`` columns, one per object."""

    name: str
    collection: str
    width: int


@dataclass(frozen=True)
class Layout:
    """Flat branches, then each jagged branch padded to its width, both sorted by name.

    The order depends on names alone, never on the order of files or of branches in a file.

    Parameters
    ----------
    flat : tuple of str
        Flat branches, one column each.
    jagged : tuple of JaggedBranch
        Jagged branches; a width of 0 gives no column.
    """

    flat: tuple[str, ...]
    jagged: tuple[JaggedBranch, ...]

    @classmethod
    def from_specs(cls, specs: Specs, *, max_width: int | None = None) -> Layout:
        """Layout of the branches in ``specs``, as wide as the largest multiplicity or the cap."""
        flat = []
        jagged = []
        for name in sorted(specs.branches):
            collection = specs.branches[name].branch.collection
            if collection is None:
                flat.append(name)
            else:
                width = specs.max_multiplicity(collection)
                if max_width is not None:
                    width = min(width, max_width)
                jagged.append(JaggedBranch(name, collection, width))
        return cls(tuple(flat), tuple(jagged))

    @property
    def branches(self) -> tuple[str, ...]:
        """Names of all branches in the order of their columns."""
        return self.flat + tuple(branch.name for branch in self.jagged)

    @cached_property
    def collections(self) -> tuple[str, ...]:
        """Names of the collections, sorted."""
        return tuple(sorted({branch.collection for branch in self.jagged}))

    @cached_property
    def collection_rows(self) -> NDArray[np.int64]:
        """Position in `collections` of each jagged branch's collection."""
        rows = {name: row for row, name in enumerate(self.collections)}
        return np.array([rows[branch.collection] for branch in self.jagged], dtype=np.int64)

    @cached_property
    def widths(self) -> NDArray[np.int64]:
        """Number of columns of each jagged branch."""
        return np.array([branch.width for branch in self.jagged], dtype=np.int64)

    @cached_property
    def first_columns(self) -> NDArray[np.int64]:
        """First column of each jagged branch."""
        ends = len(self.flat) + np.cumsum(self.widths)
        return np.asarray(ends - self.widths, dtype=np.int64)

    @property
    def num_columns(self) -> int:
        """Length of a dense row."""
        return len(self.flat) + int(self.widths.sum())

    def columns(self) -> list[str]:
        """Names of all columns, such as ``MET_pt`` and ``Jet_pt[3]``."""
        padded = [f"{branch.name}[{i}]" for branch in self.jagged for i in range(branch.width)]
        return [*self.flat, *padded]

    def branch_of_columns(self) -> NDArray[np.int64]:
        """Position in `branches` of each column's branch, shape (columns,)."""
        repeats = [1] * len(self.flat) + self.widths.tolist()
        return np.repeat(np.arange(len(self.branches)), repeats)
