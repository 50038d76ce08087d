"""Requests in parts that are scored in one go, few events and values each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain, groupby
from typing import Any, Protocol, Self

from mlaas4hep_dask.events import Branch, Events
from mlaas4hep_dask.events.columns import fitted
from mlaas4hep_dask.events.events import between, concatenate
from mlaas4hep_dask.events.records import columnar, events_of, extra_names

# Events scored before others get a turn. Slices of 256 bring the p99 of single events next to
# bulk requests from 0.2 s to 22 ms, and cost bulk requests a sixth of their rate.
SLICE = 256
SLICE_VALUES = 65_536


class Part(Protocol):
    """Some events of one request, in whatever form they were sent."""

    @property
    def first(self) -> int:
        """Number of the first in its request."""

    @property
    def num_events(self) -> int:
        """Number of events."""

    @property
    def num_values(self) -> int:
        """About how many values they hold."""

    def loaded(self) -> Loaded:
        """The events; `PayloadError` when they are not in the form of their protocol."""


class Loaded(Protocol):
    """Events of one request that can become columns, together with others of their form."""

    @property
    def first(self) -> int:
        """Number of the first in its request."""

    @property
    def num_events(self) -> int:
        """Number of events."""

    def events(self, branches: Sequence[Branch]) -> Events:
        """The events; `EventError` names the first that does not fit the branches."""

    def extra_names(self, branches: Sequence[Branch]) -> set[str]:
        """What events that fit hold beside the branches."""

    @staticmethod
    def together(parts: Sequence[Any], branches: Sequence[Branch]) -> Events:
        """The events of several parts of this form; raises as `events_together`."""


@dataclass(frozen=True, slots=True)
class Records:
    """Events as mappings of branch names to values.

    Parameters
    ----------
    records : sequence
        One for each event; see `mlaas4hep_dask.events.records.events_of`.
    first : int
        Number of the first in its request.
    num_values : int
        About how many values they hold.
    """

    records: Sequence[Any]
    first: int = 0
    num_values: int = 0

    @property
    def num_events(self) -> int:
        """Number of events."""
        return len(self.records)

    def loaded(self) -> Self:
        """The same."""
        return self

    def events(self, branches: Sequence[Branch]) -> Events:
        """The events; `EventError` names the first that does not fit the branches."""
        return events_of(self.records, branches, first=self.first)

    def extra_names(self, branches: Sequence[Branch]) -> set[str]:
        """What events that fit hold beside the branches."""
        return extra_names(self.records, branches)

    @staticmethod
    def together(parts: Sequence[Records], branches: Sequence[Branch]) -> Events:
        """The events of several parts; `UnfitError` when some do not fit."""
        return columnar(list(chain.from_iterable(part.records for part in parts)), branches)


@dataclass(frozen=True, slots=True)
class Columns:
    """Events that are columns already.

    Parameters
    ----------
    columns : Events
        At least the branches that a model needs; see `mlaas4hep_dask.events.columns.fitted`.
    first : int
        Number of the first in its request.
    """

    columns: Events
    first: int = 0

    @property
    def num_events(self) -> int:
        """Number of events."""
        return len(self.columns)

    @property
    def num_values(self) -> int:
        """How many values they hold."""
        return sum(values.size for values in self.columns.contents.values())

    def loaded(self) -> Self:
        """The same."""
        return self

    def events(self, branches: Sequence[Branch]) -> Events:
        """The events; `EventError` names the first that does not fit the branches."""
        return fitted(self.columns, branches, first=self.first)

    def extra_names(self, branches: Sequence[Branch]) -> set[str]:
        """Other branches than these."""
        return {branch.name for branch in self.columns.branches} - {each.name for each in branches}

    @staticmethod
    def together(parts: Sequence[Columns], branches: Sequence[Branch]) -> Events:
        """The events of several parts; `EventError` when some do not fit."""
        return joined([part.events(branches) for part in parts])


def parts_of_columns(events: Events) -> list[Columns]:
    """A request of columns in parts, so that others get a turn in between."""
    weight = sum(values.size for values in events.contents.values()) // max(1, len(events))
    size = max(1, min(SLICE, SLICE_VALUES // max(1, weight)))
    starts = range(0, len(events), size)
    return [
        Columns(between(events, start, min(start + size, len(events))), start) for start in starts
    ]


def events_together(parts: Sequence[Loaded], branches: Sequence[Branch]) -> Events:
    """The events of parts of any forms, in order.

    Raises
    ------
    EventError
        When an event does not fit the branches; its number is right where there is one part.
    UnfitError
        When some event does not fit, and it is not known which.
    """
    if len(parts) == 1:
        return parts[0].events(branches)
    runs = groupby(parts, key=lambda part: part.together)  # parts of one form have one
    return joined([together(list(run), branches) for together, run in runs])


def joined(parts: Sequence[Events]) -> Events:
    """The events of all parts, in order; a branch may have another dtype in each."""
    if len(parts) == 1:
        return parts[0]
    events = concatenate(parts)
    typed = (replace(each, dtype=events.contents[each.name].dtype.name) for each in events.branches)
    return replace(events, branches=tuple(typed))
