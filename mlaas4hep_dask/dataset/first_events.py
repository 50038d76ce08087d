"""The first events of each sample, which histograms and suggestions of a report are made from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from mlaas4hep_dask.reader import Partition

FIRST_EVENTS = 20_000  # of each sample


def first_events(parts: Iterable[Partition]) -> list[Partition]:
    """The partitions, of which those of a sample end with its first `FIRST_EVENTS` entries."""
    budget: dict[str, int] = {}
    short = []
    for part in parts:
        num_events = min(len(part), budget.setdefault(part.sample, FIRST_EVENTS))
        if num_events:
            short.append(replace(part, entry_stop=part.entry_start + num_events))
            budget[part.sample] -= num_events
    return short
