"""Results that are taken as soon as they are done, so that none is lost with the workers.

A result of Dask's lies in the memory of the workers that made it until it is fetched, and one whose
workers have died is made again. Batch jobs end by walltime, often all at once, and then everything
would begin anew. Here a result is fetched when it is done and Dask lets it go: what all workers
together lose is what they are at, and what is done within some moments.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

from distributed import Client, Future, wait
from distributed.scheduler import KilledWorker

from mlaas4hep_dask.places import Group
from mlaas4hep_dask.waiting.deaths import Deaths
from mlaas4hep_dask.waiting.groups import is_of
from mlaas4hep_dask.waiting.patience import PATIENCE, Patience
from mlaas4hep_dask.waiting.shared import is_given_up, run_again
from mlaas4hep_dask.waiting.waits import awaited, cancelled, fetch, killed, let_go
from mlaas4hep_dask.waiting.watch import LOOK_EVERY, Watch
from mlaas4hep_dask.waiting.workers import memory_ends

logger = logging.getLogger("mlaas4hep_dask.waiting")

AHEAD = 8  # tasks per thread that are sent and not yet taken: as few as keep all threads at work
LEAST_AHEAD = 64  # tasks, so that it shows how many workers there could be
CANCELLED = (asyncio.CancelledError, concurrent.futures.CancelledError)
FETCHED = 16  # results that are here and not yet looked at


@dataclass(frozen=True)
class Work:
    """Something that a cluster does, of which one result is taken.

    Parameters
    ----------
    send : callable
        Gives the future of the result, given how often this was sent before; no two times the
        same key.
    tag : Any
        What the result is of.
    num_tasks : int
        How many tasks it is.
    place : callable
        Of what data the task with a key is, for a message.
    """

    send: Callable[[int], Future]
    tag: Any = None
    num_tasks: int = 1
    place: Callable[[Any], str] = lambda _: ""
    num_sent: int = 0


def taken(
    client: Client,
    source: Callable[[int], Work | None],
    what: str,
    *,
    shared: Sequence[Future] = (),
    group: Group | None = None,
    patience: Patience = PATIENCE,
) -> Iterator[tuple[Any, Any]]:
    """Tags and results of some work, in the order in which it is done.

    Only so much is sent at a time as keeps all threads at work, so that the memory of the
    scheduler does not grow with the work.

    Parameters
    ----------
    client : distributed.Client
        Of the cluster.
    source : callable
        Given how many tasks the cluster works on at a time, gives the next work; None when there
        is none at present. It is asked again as long as results come.
    what : str
        A name of it, for the words that are told.
    shared : sequence of Future
        Values that the tasks refer to.
    group : {"readers", "trainers"}, optional
        Whose workers alone can do it.
    patience : Patience
        For how long something may be lacking.

    Raises
    ------
    ClusterError
        When the scheduler is gone, no worker is left that could do the work, or workers died again
        and again at one task.
    Exception
        The first error of a task.
    """
    watch = Watch(client, what, group=group, patience=patience)
    basket = _Basket(client)
    deaths, num_taken, num_threads = Deaths(), 0, 0
    under_way: dict[int, tuple[Work, Future]] = {}
    numbers = count()

    def send(work: Work, number: int) -> None:
        under_way[number] = work, work.send(work.num_sent)
        basket.await_result(number, under_way[number][1])

    try:
        while True:
            if watch.is_due:
                present = watch.look()
                num_threads = sum(
                    int(info["nthreads"])
                    for info in present.values()
                    if group is None or is_of(info, group)
                )
            load = sum(work.num_tasks for work, _ in under_way.values())
            while (
                load < max(LEAST_AHEAD, AHEAD * num_threads)
                and (work := source(num_threads)) is not None
            ):
                send(work, next(numbers))
                load += work.num_tasks
            if not under_way:
                return
            for number, value in awaited(client, basket.taken, watch):
                work, future = under_way.pop(number)
                future.release()  # Dask forgets its tasks, whose result is here
                if isinstance(value, KilledWorker):
                    may_try = deaths.may_try_again(number, value, num_taken)
                    if not may_try or value.last_worker.address in memory_ends(client):
                        num_deaths = deaths.num_deaths(number, value)
                        place = work.place(value.task)
                        raise killed(client, what, value, num_deaths, place) from value
                    logger.info("%s: %r is sent again, after deaths of workers", what, value.task)
                    if is_given_up(value):
                        awaited(client, lambda: basket.revive(shared), watch)
                    send(replace(work, num_sent=work.num_sent + 1), number)
                elif isinstance(value, CANCELLED):
                    raise cancelled(watch, value) from value
                elif isinstance(value, BaseException):
                    raise value
                else:
                    num_taken += 1
                    yield work.tag, value
    finally:
        basket.close()
        if under_way:
            let_go(client, [future for _, future in under_way.values()])


class _Basket:
    """Results that have come; all but two methods run in the client's loop."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._loop = client.loop.asyncio_loop
        self._ready: list[tuple[int, Any]] = []
        self._room = asyncio.Semaphore(FETCHED)
        self._has_come = asyncio.Event()
        self._num_given = 0  # of those last given, which are looked at by now
        self._waiting: set[asyncio.Task[None]] = set()

    def await_result(self, number: int, future: Future) -> None:
        """Have the result of a future fetched; called from another thread."""
        self._loop.call_soon_threadsafe(self._begin, number, future)

    def close(self) -> None:
        """Wait for nothing any more; called from another thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._end)

    def _begin(self, number: int, future: Future) -> None:
        task = asyncio.ensure_future(self._fetch(number, future))
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)

    def _end(self) -> None:
        for task in self._waiting:
            task.cancel()

    async def _fetch(self, number: int, future: Future) -> None:
        value: Any
        try:
            with self._client.as_current():
                await wait([future])
            await self._room.acquire()
            if future.status == "error":  # `Client.gather` leaves errors that nobody takes
                value = await future.exception(asynchronous=True)
                value = value.with_traceback(await future.traceback(asynchronous=True))
            else:
                [value] = await fetch(self._client, [future])
        except (Exception, asyncio.CancelledError) as error:  # raised by who takes it
            value = error
        self._ready.append((number, value))
        self._has_come.set()

    async def taken(self) -> list[tuple[int, Any]]:
        """What has come since the last call; nothing if nothing does for a while."""
        for _ in range(self._num_given):
            self._room.release()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._has_come.wait(), LOOK_EVERY)
        self._has_come.clear()
        results, self._ready = self._ready, []
        self._num_given = len(results)
        return results

    async def revive(self, shared: Sequence[Future]) -> None:
        """Have shared values made again that were given up."""
        for future in shared:
            if future.status == "error":
                await run_again(self._client, [future])
