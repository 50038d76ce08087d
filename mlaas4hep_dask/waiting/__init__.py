"""Waiting: who lives on a Dask cluster, and waits that end when nobody is left who could end them.

Dask by itself waits for ever: for a task that is pinned to a worker that has gone, for workers of a
cluster that has none left, for a scheduler that was stopped. All waits of this package are here.
"""

from mlaas4hep_dask.waiting.shared import share, shared_key
from mlaas4hep_dask.waiting.waits import (
    OverdueError,
    gather,
    let_go,
    on_workers,
    result,
    wait_for,
    wait_for_workers,
)
from mlaas4hep_dask.waiting.workers import (
    LostWorkerError,
    Workers,
    living,
    num_threads,
    processes,
    size,
    workers_of,
)

__all__ = [
    "LostWorkerError",
    "OverdueError",
    "Workers",
    "gather",
    "let_go",
    "living",
    "num_threads",
    "on_workers",
    "processes",
    "result",
    "share",
    "shared_key",
    "size",
    "wait_for",
    "wait_for_workers",
    "workers_of",
]
