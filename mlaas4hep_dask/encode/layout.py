"""Layout: which column of a dense row holds which value of an event."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlaas4hep_dask.encode.rules import apply_rules, rules_of
from mlaas4hep_dask.errors import EncodeError
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
    def from_specs(cls, specs: Specs, *, width: Any = "max") -> Layout:
        """Layout of the branches in ``specs``.

        Parameters
        ----------
        specs : Specs
            Specs of the whole data set.
        width : str, int or mapping
            Width of the collections: ``"max"`` for the largest multiplicity, a number for that as
            a cap, ``{"quantile": q}`` for the smallest width that holds all objects in the
            fraction ``q`` of the events; or a mapping from patterns of collections to these.

        Raises
        ------
        EncodeError
            When a width is none of these, or a pattern matches no collection.
        """
        collections = {entry.branch.collection for entry in specs.branches.values()} - {None}
        widths = {
            name: _width(rule, specs.multiplicities[name])
            for name, rule in width_rules(width, filter(None, collections)).items()
        }
        flat = []
        jagged = []
        for name in sorted(specs.branches):
            collection = specs.branches[name].branch.collection
            if collection is None:
                flat.append(name)
            else:
                jagged.append(JaggedBranch(name, collection, widths[collection]))
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
    def collection_widths(self) -> dict[str, int]:
        """Number of objects kept, by collection."""
        return {branch.collection: branch.width for branch in self.jagged}

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


def width_rules(width: Any, collections: Iterable[str]) -> dict[str, Any]:
    """What ``width`` says of each collection; see `Layout.from_specs` and `apply_rules`."""
    rules = [("*", width)] if _is_quantile(width) else rules_of(width)
    return apply_rules(rules, collections, default="max", option="width", what="collection")


def _is_quantile(width: Any) -> bool:
    """True for ``{"quantile": q}``."""
    return isinstance(width, Mapping) and width.keys() == {"quantile"}


def _width(rule: Any, histogram: Sequence[int]) -> int:
    """Number of columns for a collection with this histogram of multiplicities."""
    largest = max(len(histogram) - 1, 0)
    if rule == "max":
        return largest
    if isinstance(rule, int) and not isinstance(rule, bool) and rule >= 0:
        return min(rule, largest)
    if _is_quantile(rule):
        fraction = rule["quantile"]
        if isinstance(fraction, int | float) and 0 < fraction <= 1:
            needed = Fraction(repr(fraction)) * sum(histogram)  # 0.99 of 100 events are 99
            num_events = accumulate(histogram)
            # At least 1: a collection that most events lack must not vanish from the inputs.
            first = next((k for k, events in enumerate(num_events) if events >= needed), largest)
            return min(max(first, 1), largest)
    raise EncodeError(
        f"width is {rule!r}; expected 'max', a number of objects, or a quantile above 0 and at "
        "most 1",
        option="width",
    )
