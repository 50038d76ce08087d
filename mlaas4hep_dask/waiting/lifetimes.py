"""Workers that end in order: their time is over, or their job is ended from outside.

Batch systems end jobs at their walltime, for others, and on demand. That is nobody's fault, and
more workers come. They ask by SIGTERM, of which a worker dies at once, before it could tell.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from contextlib import suppress
from datetime import timedelta

import psutil
from distributed import Client, Worker, WorkerPlugin

from mlaas4hep_dask.waiting.events import events_of

ENDED_IN_ORDER = "mlaas4hep_dask-ended-in-order"  # topic under which workers tell it
NEARLY = 0.9  # of its lifetime; the process is a little older than the worker in it
FLUSH = timedelta(seconds=1)
FULL = 0.9  # of its memory limit: who is ended then is ended by its nanny, for that


class _TellsItsEnd(WorkerPlugin):  # type: ignore[misc]  # untyped there
    """Tells the scheduler when a worker ends in order, and lets it do so when it is asked to."""

    name = "mlaas4hep_dask-ends"
    idempotent = True

    def setup(self, worker: Worker) -> None:
        is_alone = worker.nanny is not None  # in a process of its own, without handlers
        if is_alone and threading.current_thread() is threading.main_thread():
            loop = asyncio.get_running_loop()
            loop.add_signal_handler(signal.SIGTERM, worker.loop.add_callback, _end, worker)

    def teardown(self, worker: Worker) -> None:
        _tell(worker)


def _tell(worker: Worker) -> None:
    age = time.time() - psutil.Process().create_time()
    is_in_time = worker.lifetime and age >= NEARLY * worker.lifetime
    words = "came to the end of its lifetime" if is_in_time else "was told to end"
    worker.log_event(ENDED_IN_ORDER, {"process": worker.local_directory, "words": words})


async def _end(worker: Worker) -> None:
    """Die of SIGTERM, as without a handler, but tell it before; the nanny cleans up."""
    asyncio.get_running_loop().remove_signal_handler(signal.SIGTERM)
    limit = worker.memory_manager.memory_limit
    if not limit or psutil.Process().memory_info().rss < FULL * limit:
        _tell(worker)
        with suppress(OSError, TimeoutError):
            await worker.batched_stream.close(FLUSH)  # which sends what it still has
    os.kill(os.getpid(), signal.SIGTERM)


async def tell_ends(client: Client) -> None:
    """Let all workers of a cluster, those that come later too, tell when they end in order.

    It may be asked for more than once.
    """
    with suppress(OSError):  # a worker is leaving; the scheduler keeps it for those to come
        await client.register_plugin(_TellsItsEnd())


def ended_in_order(client: Client) -> dict[str, str]:
    """In words, how workers ended that ended in order, by their folders as of `processes`."""
    return {event["process"]: event["words"] for event in events_of(client, ENDED_IN_ORDER)}
