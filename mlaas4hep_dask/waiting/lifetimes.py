"""Workers that end since their time is over, as those of batch jobs do before the walltime.

That is nobody's fault, and more of them come.
"""

from __future__ import annotations

import time
from contextlib import suppress

import psutil
from distributed import Client, Worker, WorkerPlugin

from mlaas4hep_dask.waiting.events import events_of

ENDED_IN_TIME = "mlaas4hep_dask-ended-in-time"  # topic under which workers tell it
NEARLY = 0.9  # of its lifetime; the process is a little older than the worker in it


class _TellsItsEnd(WorkerPlugin):  # type: ignore[misc]  # untyped there
    """Tells the scheduler when a worker ends since its time is over."""

    name = "mlaas4hep_dask-lifetimes"
    idempotent = True

    def teardown(self, worker: Worker) -> None:
        age = time.time() - psutil.Process().create_time()
        if worker.lifetime and age >= NEARLY * worker.lifetime:
            worker.log_event(ENDED_IN_TIME, {"process": worker.local_directory})


async def tell_ends(client: Client) -> None:
    """Let all workers of a cluster, those that come later too, tell that their time is over.

    It may be asked for more than once.
    """
    with suppress(OSError):  # a worker is leaving; the scheduler keeps it for those to come
        await client.register_plugin(_TellsItsEnd())


def ended_in_time(client: Client) -> set[str]:
    """The folders, as of `processes`, of workers that ended since their time was over."""
    return {event["process"] for event in events_of(client, ENDED_IN_TIME)}
