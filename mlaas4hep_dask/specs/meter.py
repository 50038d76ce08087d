"""Measures the values of a partition while they are read.

A reader that copies values has each of them in a register once. What is measured there costs a
fraction of what it costs to fetch all values from memory again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlaas4hep_dask.specs.draw import Draw, draw_events, draw_objects
from mlaas4hep_dask.specs.events import Branch
from mlaas4hep_dask.specs.moments import Moments

LANES = 8  # partial sums that are kept of each, as many as a vector holds
LOW, HIGH, TOTAL, SQUARES = range(4)  # rows of the partial sums
_START = np.repeat(np.array([[math.inf], [-math.inf], [0.0], [0.0]]), LANES, axis=1)
_LEAST = 1e-3  # of the sum of squares: squared deviations from the mean that have lost few digits


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


@dataclass(slots=True)  # not frozen, which would take a microsecond more to make
class Watch:
    """What was seen of a branch so far.

    Parameters
    ----------
    values : ndarray, shape (values,)
        All values, once they are read.
    sums : ndarray of float64, shape (4, LANES)
        Partial extremes and sums of what was read: rows `LOW`, `HIGH`, `TOTAL` and `SQUARES`.
    places : ndarray of intp, shape (drawn,)
        Where the values to be drawn stand, ascending.
    drawn : ndarray, shape (drawn,)
        These values, once they are read; booleans as bytes.
    """

    values: NDArray[Any]
    sums: NDArray[np.float64]
    places: NDArray[np.intp]
    drawn: NDArray[Any]


class Meter:
    """Specs of one partition in the making.

    `watch` is for the reader, before it copies the values of a branch. Whatever was not watched
    is measured afterwards, and so is what other values stand for by then.

    Parameters
    ----------
    keys : ndarray of uint64, shape (events,)
        By which values are drawn; see `event_keys` and `entry_keys`.
    """

    def __init__(self, keys: NDArray[np.uint64]) -> None:
        self._keys = keys
        self._groups: dict[str | None, Group] = {}
        self._watched: dict[str, Watch] = {}

    def __len__(self) -> int:
        return self._keys.size

    def group(self, collection: str | None, offsets: NDArray[np.int64] | None) -> Group:
        """The group of a collection whose objects begin at ``offsets``; None is for flat."""
        group = self._groups.get(collection)
        if group is None or group.offsets is not offsets:
            if offsets is None:
                group = Group(None, (), *draw_events(self._keys))
            else:
                draw, places, counts = draw_objects(self._keys, offsets)
                group = Group(offsets, tuple(counts.tolist()), draw, places)
            self._groups[collection] = group
        return group

    def watch(
        self, branch: Branch, values: NDArray[Any], offsets: NDArray[np.int64] | None
    ) -> Watch:
        """Where to note what is seen of ``values``, which are yet to be read."""
        places = self.group(branch.collection, offsets).places
        dtype = np.dtype(np.uint8) if values.dtype.kind == "b" else values.dtype
        watch = Watch(values, _START.copy(), places, np.empty(places.size, dtype))
        self._watched[branch.name] = watch
        return watch

    def seen(self, contents: Mapping[str, NDArray[Any]]) -> dict[str, tuple[Moments, NDArray[Any]]]:
        """By branch: moments and drawn values of those of ``contents`` that were watched.

        All their values have been read. Left out are branches with values that are not finite, or
        that lie so close together that the difference of sums has lost digits.
        """
        watched = {
            name: watch
            for name, watch in self._watched.items()
            if watch.values.size and contents.get(name) is watch.values
        }
        if not watched:
            return {}
        sums = np.stack([watch.sums for watch in watched.values()])
        sizes = np.array([watch.values.size for watch in watched.values()])
        with np.errstate(all="ignore"):  # what is not finite is left out below
            low, high = sums[:, LOW].min(1), sums[:, HIGH].max(1)
            total, squares = sums[:, TOTAL].sum(1), sums[:, SQUARES].sum(1)
            mean = total / sizes
            spread = squares - total * mean
            good = np.isfinite(low + high) & (spread >= _LEAST * squares) & np.isfinite(spread)
        numbers = np.stack([low + 0.0, high + 0.0, mean, spread], axis=1).tolist()  # not -0.0
        return {
            name: (
                Moments(watch.values.size, 0, 0, 0, *ends_and_sums),
                watch.drawn.view(watch.values.dtype),
            )
            for (name, watch), ends_and_sums, is_good in zip(
                watched.items(), numbers, good.tolist(), strict=True
            )
            if is_good
        }
