"""Tells a client which events its tasks have done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

from distributed import get_worker

from mlaas4hep_dask.waiting import ClusterHandle
from mlaas4hep_dask.waiting.topics import SAMPLES

PROGRESS = "mlaas4hep_dask-progress"  # topic of Dask events: numbers of events done


@contextmanager
def watching(cluster: ClusterHandle, progress: Callable[[int], None] | None) -> Iterator[None]:
    """Passes the events that tasks report as done on to ``progress``, inside a ``with``."""
    if progress is None:
        yield
        return
    cluster.hear(PROGRESS, progress)
    try:
        yield
    finally:
        cluster.unhear(PROGRESS)


def tell_progress(num_events: int, sample: str) -> None:
    """Tell the client, and the scheduler, that a task of pass 1 has dealt with some events."""
    try:
        worker = get_worker()
    except ValueError:  # not on a worker
        return
    worker.log_event(PROGRESS, num_events)
    tell_sample("specs", num_events, sample)


def tell_sample(stage: Literal["specs", "blocks"], num_events: int, sample: str) -> None:
    """Tell the scheduler of which sample the events are that a task has dealt with."""
    try:
        worker = get_worker()
    except ValueError:  # not on a worker
        return
    worker.log_event(SAMPLES, {"stage": stage, "sample": sample, "events": num_events})
