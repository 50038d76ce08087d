"""What pass 2 could not read: blocks of events without weight, and the client that is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from distributed import Client, get_worker

from mlaas4hep_dask.dataset.plan import Skipped
from mlaas4hep_dask.reader import ReadCounts
from mlaas4hep_dask.specs import Branch, Events

if TYPE_CHECKING:
    from mlaas4hep_dask.reader import Partition


@dataclass(frozen=True)
class Lost:
    """A partition that pass 1 read and pass 2 could not.

    Its ``num_events`` selected events stay in their places with weight 0 and all values missing,
    so that they teach nothing and change no metric.
    """

    skipped: Skipped
    num_events: int


def empty_events(branches: Mapping[str, Branch], num_events: int) -> Events:
    """Events of which every value is missing."""
    missing = np.full(num_events, np.nan, dtype=np.float32)
    no_objects = np.empty(0, dtype=np.float32)
    return Events(
        num_events,
        tuple(branches.values()),
        {n: no_objects if b.kind == "jagged" else missing for n, b in branches.items()},
        {
            branch.collection: np.zeros(num_events + 1, dtype=np.int64)
            for branch in branches.values()
            if branch.collection is not None
        },
    )


def tell(topic: str, partition: Partition, num_events: int, counts: ReadCounts, why: str) -> None:
    """Tell the client of attempts that failed, and if ``why`` is given that all of them did."""
    if not counts.retries and not why:
        return
    start, stop = partition.entry_start, partition.entry_stop
    lost = [partition.file, partition.sample, start, stop, why, num_events] if why else None
    try:
        worker = get_worker()
    except ValueError:  # not on a worker
        return
    worker.log_event(topic, {"retries": dict(counts.retries), "lost": lost})


@dataclass
class Listener:
    """Keeps what the tasks of pass 2 tell."""

    lost: dict[tuple[str, int], Lost] = field(default_factory=dict)
    counts: ReadCounts = field(default_factory=ReadCounts)

    def listen(self, client: Client, topic: str) -> None:
        """Hear what is told from now on."""
        client.subscribe_topic(topic, self._hear)

    def _hear(self, event: tuple[Any, Mapping[str, Any]]) -> None:
        told = event[1]
        self.counts.retries.update(told["retries"])
        if told["lost"]:
            *skipped, num_events = told["lost"]
            entry = Skipped(*skipped)
            self.lost[entry.file, entry.entry_start] = Lost(entry, num_events)
