"""Requests in parts that are scored in one go, few events and values each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

# Events scored before others get a turn. Slices of 256 bring the p99 of single events next to
# bulk requests from 0.2 s to 22 ms, and cost bulk requests a sixth of their rate.
SLICE = 256
SLICE_VALUES = 65_536


class Scorable(Protocol):
    """Some events of one request."""

    @property
    def first(self) -> int:
        """Number of the first in its request."""

    @property
    def size(self) -> int:
        """Number of events."""

    @property
    def values(self) -> int:
        """About how many values they hold."""

    def parsed(self) -> Sequence[Any]:
        """The JSON objects, one per event; `PayloadError` when they are no JSON."""


@dataclass(frozen=True, slots=True)
class Part:
    """Parsed events of one request that are scored in one go.

    Parameters
    ----------
    objects : sequence
        JSON objects, one per event.
    first : int
        Number of the first in its request.
    values : int
        About how many values they hold.
    """

    objects: Sequence[Any]
    first: int = 0
    values: int = 0

    @property
    def size(self) -> int:
        """Number of events."""
        return len(self.objects)

    def parsed(self) -> Sequence[Any]:
        """The JSON objects."""
        return self.objects
