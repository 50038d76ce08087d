"""Specs of a partition in the making: what a reader sees of values while it reads them.

Each value is in a register once then. What is measured there costs a fraction of what it costs to
fetch all values from memory again, and values that nothing else needs never have to be kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlaas4hep_dask.events.events import Branch
from mlaas4hep_dask.specs.draw import Draw, draw_events, draw_objects, events_of
from mlaas4hep_dask.specs.moments import EMPTY, to_row
from mlaas4hep_dask.specs.table import group_rows

_NOTHING = np.array(to_row(EMPTY))


@dataclass(frozen=True, slots=True)
class Group:
    """What the branches of a collection, or all flat ones, are measured with.

    Parameters
    ----------
    offsets : ndarray of int64, shape (events + 1,), or None
        Where each event's objects begin; None for the flat branches.
    multiplicities : tuple of int
        Events by multiplicity; empty for the flat branches.
    draw : Draw
        Which values are drawn.
    places : ndarray of intp, shape (drawn,)
        Where these stand, ascending.
    """

    offsets: NDArray[np.int64] | None
    multiplicities: tuple[int, ...]
    draw: Draw
    places: NDArray[np.intp]

    def with_classes(self, classes: NDArray[np.uint8]) -> Draw:
        """The draw, with the class of the event that each value is of."""
        if classes.size and (classes == classes[0]).all():  # as in most files
            return self.draw.of_class(int(classes[0]))
        events = self.places if self.offsets is None else events_of(self.places, self.offsets)
        return replace(self.draw, class_numbers=classes[events])


class Watch(NamedTuple):
    """What was seen so far of a branch, which stands in one row among others.

    Parameters
    ----------
    row : int
        Its row.
    numbers : ndarray of float64, shape (branches, 8)
        Moments of what was read; see `to_row`.
    places : ndarray of intp, shape (drawn,)
        Where the values to be drawn stand, ascending.
    drawn : ndarray, shape (branches, drawn)
        These values, once they are read; booleans as bytes.
    """

    row: int
    numbers: NDArray[np.float64]
    places: NDArray[np.intp]
    drawn: NDArray[Any]


@dataclass(frozen=True, slots=True)
class Observations:
    """What was seen of some branches of a group, of one dtype.

    Parameters
    ----------
    values : dict of str to ndarray, shape (values,), or None
        All values of each branch; None when they are not kept.
    num_values : int
        How many each branch has.
    numbers : ndarray of float64, shape (branches, 8)
        What each `Watch` has.
    drawn : ndarray, shape (branches, drawn)
        The drawn values.
    """

    values: dict[str, NDArray[Any] | None]
    num_values: int
    numbers: NDArray[np.float64]
    drawn: NDArray[Any]

    def are_enough(self) -> list[bool]:
        """By branch: whether all of its values were seen, and their sums are finite."""
        is_whole = self.numbers[:, 0] == self.num_values
        enough: list[bool] = (is_whole & np.isfinite(self.numbers[:, 7])).tolist()
        return enough


class Meter:
    """Specs of one partition in the making.

    `watch` is for the reader, before it copies the values of branches. Whatever was not watched
    is measured afterwards, and so is a branch that has other values by then.

    Parameters
    ----------
    keys : ndarray of uint64, shape (events,)
        By which values are drawn; see `event_keys` and `entry_keys`.
    """

    def __init__(self, keys: NDArray[np.uint64]) -> None:
        self._keys = keys
        self._groups: dict[str | None, Group] = {}
        self._observations: dict[str, tuple[Observations, int]] = {}  # by branch, with its row

    def __len__(self) -> int:
        return self._keys.size

    def fresh(self) -> Meter:
        """One with the same keys that has seen nothing, for an attempt of its own to read."""
        return Meter(self._keys)

    def adopt(self, other: Meter) -> None:
        """Take over what another has seen."""
        self._groups, self._observations = other._groups, other._observations

    def group(self, collection: str | None, offsets: NDArray[np.int64] | None) -> Group:
        """The group of a collection whose objects begin at ``offsets``; None is for flat."""
        group = self._groups.get(collection)
        if group is None or group.offsets is not offsets:
            if offsets is None:
                group = Group(None, (), *draw_events(self._keys))
            else:
                draw, places, multiplicities = draw_objects(self._keys, offsets)
                group = Group(offsets, tuple(multiplicities.tolist()), draw, places)
            self._groups[collection] = group
        return group

    def watch(
        self,
        branches: Sequence[Branch],
        contents: Mapping[str, NDArray[Any]],
        offsets: NDArray[np.int64] | None,
    ) -> dict[str, Watch]:
        """By branch of one group: where to note what is seen of its values, yet to be read.

        ``contents`` has the arrays of those that are kept.
        """
        watches: dict[str, Watch] = {}
        places = self.group(branches[0].collection, offsets).places
        num_values = len(self) if offsets is None else int(offsets[-1])
        for (_, dtype), rows in group_rows(branches).items():
            names = [branches[row].name for row in rows]
            values = np.empty((len(names), places.size), dtype)
            numbers = np.empty((len(names), _NOTHING.size))
            numbers[:] = _NOTHING
            observations = Observations(
                {name: contents.get(name) for name in names}, num_values, numbers, values
            )
            noted = values.view(np.uint8) if values.dtype.kind == "b" else values
            for row, name in enumerate(names):
                watches[name] = Watch(row, numbers, places, noted)
                self._observations[name] = observations, row
        return watches

    def enough(self) -> set[str]:
        """The branches of which all that specs need was seen."""
        groups = {id(observations): observations for observations, _ in self._observations.values()}
        return {
            name
            for observations in groups.values()
            for name in compress(observations.values, observations.are_enough())
        }

    def observations(
        self, names: Sequence[str], contents: Mapping[str, NDArray[Any]]
    ) -> tuple[Observations | None, list[int | None]]:
        """What was seen of branches of one group and dtype, and in which row each stands there.

        The row is None for a branch whose values have not been seen, or have changed since.
        """
        entries = [self._observations.get(name) for name in names]
        observations = next((each[0] for each in entries if each is not None), None)
        if observations is None:
            return None, [None] * len(names)
        return observations, [
            each[1]
            if each is not None
            and each[0] is observations
            and observations.values[name] is contents.get(name)
            else None
            for name, each in zip(names, entries, strict=True)
        ]
