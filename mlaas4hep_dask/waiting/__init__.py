"""Waiting: who lives on a Dask cluster, and waits that end when nobody is left who could end them.

Dask by itself waits for ever: for a task that is pinned to a worker that has gone, for workers of a
cluster that has none left, for a scheduler that was stopped. All waits of this package are here.
"""

from mlaas4hep_dask.places import Group
from mlaas4hep_dask.waiting.handle import ClusterHandle
from mlaas4hep_dask.waiting.patience import Patience
from mlaas4hep_dask.waiting.shared import shared_key
from mlaas4hep_dask.waiting.sight import readers_that_see
from mlaas4hep_dask.waiting.taking import Work
from mlaas4hep_dask.waiting.watch import OverdueError
from mlaas4hep_dask.waiting.workers import (
    ENDED_FOR_MEMORY,
    LostWorkerError,
    processes,
    size,
    workers_of,
)

__all__ = [
    "ENDED_FOR_MEMORY",
    "ClusterHandle",
    "Group",
    "LostWorkerError",
    "OverdueError",
    "Patience",
    "Work",
    "processes",
    "readers_that_see",
    "shared_key",
    "size",
    "workers_of",
]
