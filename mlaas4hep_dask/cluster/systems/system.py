"""What a module of a batch system gives: the classes of its jobs and of its queue."""

from __future__ import annotations

from dataclasses import dataclass

from mlaas4hep_dask.cluster.systems.jobs import Jobs
from mlaas4hep_dask.cluster.systems.queue import Queue


@dataclass(frozen=True)
class System:
    """A batch system.

    Attributes
    ----------
    jobs : subclass of Jobs
        What its jobs ask for, and their scripts.
    queue : subclass of Queue
        How jobs are submitted, seen and ended.
    """

    jobs: type[Jobs]
    queue: type[Queue]
