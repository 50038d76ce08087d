"""The specs pass as a Dask graph: one task per partition, merged in a tree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlaas4hep_dask.dataset.tasks import Context, measure_partition, merge_measured
from mlaas4hep_dask.reader import Partition

FAN_IN = 8  # merging is cheap next to the 2 ms that a task costs, and specs are small


def specs_graph(
    partitions: Sequence[Partition], context: Context, *, token: str
) -> tuple[dict[Any, Any], Any]:
    """A low-level graph, and its key whose value is a `Measured` of all partitions."""
    shared = f"context-{token}"
    graph: dict[Any, Any] = {shared: context}
    level: list[Any] = []
    for number, partition in enumerate(partitions):
        key: Any = (f"measure-{token}", number)
        graph[key] = (measure_partition, partition, number, shared)
        level.append(key)
    depth = 0
    while len(level) > 1:
        merged: list[Any] = []
        for place in range(0, len(level), FAN_IN):
            key = (f"merge-{token}", depth, place // FAN_IN)
            graph[key] = (merge_measured, level[place : place + FAN_IN])
            merged.append(key)
        level = merged
        depth += 1
    return graph, level[0]
