"""Waits for what a cluster does, each with a condition of life and a reason that is told."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from dask.utils import key_split
from distributed import Client, Future, wait
from distributed.scheduler import KilledWorker

from mlaas4hep_dask.errors import ClusterError
from mlaas4hep_dask.places import Group
from mlaas4hep_dask.waiting.deaths import Deaths
from mlaas4hep_dask.waiting.groups import is_of
from mlaas4hep_dask.waiting.patience import PATIENCE, Patience
from mlaas4hep_dask.waiting.shared import run_again
from mlaas4hep_dask.waiting.watch import LOOK_EVERY, Watch, ended_for_memory, num_workers
from mlaas4hep_dask.waiting.workers import living, workers_of

logger = logging.getLogger("mlaas4hep_dask.waiting")

T = TypeVar("T")

ANSWER = 120.0  # seconds in which a scheduler that lives answers, with all its workers if need be


def gather(
    client: Client,
    futures: Sequence[Future],
    what: str,
    *,
    on: Mapping[str, str] | None = None,
    group: Group | None = None,
    seconds: float | None = None,
    beside: Collection[Future] = (),
    patience: Patience = PATIENCE,
) -> list[Any]:
    """The results of tasks, in their order.

    Parameters
    ----------
    client : distributed.Client
        Of the cluster.
    futures : sequence of Future
        What is waited for.
    what : str
        A name of it, for the words that are told.
    on : mapping of str to str, optional
        The processes of workers to which tasks are pinned, from `processes`: when one of them
        leaves, none else can run its task, or give its result that was not fetched yet.
    group : {"readers", "trainers"}, optional
        Whose workers alone can run them.
    seconds : float, optional
        For how long they are waited for.
    beside : collection of Future
        Others that are under way: that they get on tells that a task which was given up, since
        workers died that had it, may have done nothing to it.
    patience : Patience
        For how long something may be lacking.

    Raises
    ------
    OverdueError
        When they have not ended after ``seconds``.
    LostWorkerError
        When a worker of ``on`` has left.
    ClusterError
        When the scheduler is gone, no worker is left that could run the tasks, or workers died
        again and again at one of them.
    Exception
        The first error of a task.
    """
    futures = list(futures)
    if not futures:
        return []
    deaths = Deaths()

    async def call() -> list[Any]:
        while failed := await _first_failed(client, futures):
            error = await failed[0].exception(asynchronous=True)
            num_finished = sum(future.status == "finished" for future in (*futures, *beside))
            if not (
                isinstance(error, KilledWorker)
                and deaths.may_try_again(error.task, error, num_finished)
            ):
                break
            logger.info("%s: %r is sent again, after deaths of workers", what, error.task)
            await run_again(client, _failed(futures))
        return await fetch(client, failed or futures)  # or raises

    watch = Watch(client, what, on=on, group=group, seconds=seconds, patience=patience)
    try:
        return awaited(client, call, watch)
    except KilledWorker as error:
        raise killed(client, what, error, deaths.num_deaths(error.task, error)) from error


async def fetch(client: Client, futures: Sequence[Future]) -> list[Any]:
    """The results of tasks that have ended; awaited in the client's loop.

    It goes on when who awaits it is cancelled: Dask joins the requests of a client that are made at
    about the same time, and with a request that is cancelled there all fail that are made later.

    Raises
    ------
    Exception
        The first error of a task.
    """
    request = asyncio.ensure_future(client.gather(list(futures), asynchronous=True))
    return list(await asyncio.shield(request))


async def _first_failed(client: Client, futures: Sequence[Future]) -> list[Future]:
    """A future that has failed, as soon as there is one; none once all are there.

    `Client.gather` waits too, but when it is given up it leaves errors that nobody takes.
    """

    async def ended(future: Future) -> None:
        with client.as_current():
            await wait([future])
        if future.status != "finished":
            raise _FailedError

    waiting = [asyncio.ensure_future(ended(future)) for future in futures]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        for one in waiting:
            one.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)  # takes their errors
    return _failed(futures)[:1]


def _failed(futures: Sequence[Future]) -> list[Future]:
    return [future for future in futures if future.status not in ("finished", "pending")]


class _FailedError(Exception):
    pass


class _CancelledError(Exception):
    """Dask's reason for which tasks were cancelled; asyncio loses the words of its own kind."""


def wait_for(
    client: Client,
    future: Future,
    what: str,
    *,
    group: Group | None = None,
    patience: Patience = PATIENCE,
) -> None:
    """Wait until a task has ended, well or not; raises as `gather` does, but not its error.

    For a task whose result may be here already, so that nothing has to be fetched.
    """

    async def ended() -> None:
        with client.as_current():
            await wait([future])

    awaited(client, ended, Watch(client, what, group=group, patience=patience))


def wait_for_workers(
    client: Client,
    number: int,
    what: str,
    *,
    seconds: float,
    group: Group | None = None,
    patience: Patience = PATIENCE,
) -> None:
    """Wait until a cluster has a number of workers, or a group of it has.

    Raises
    ------
    ClusterError
        When it has fewer after some seconds; tells of those that were ended for memory.
    """
    watch = Watch(client, what, group=group, need=number, patience=patience)
    deadline = time.monotonic() + seconds
    while True:
        present = watch.look(alone=False)
        members = [a for a, info in present.items() if group is None or is_of(info, group)]
        if len(members) >= number:
            return
        if time.monotonic() > deadline:
            of = f", of which {len(members)} are {group}" if len(members) < len(present) else ""
            raise ClusterError(
                f"{what}: {num_workers(number)} needed, and after {seconds:g} s the cluster has "
                f"{len(present)}{of}{ended_for_memory(client)}",
                workers=sorted(present),
            )
        time.sleep(min(LOOK_EVERY, 0.2))  # between looks


def on_workers(
    client: Client,
    function: Callable[..., Any],
    *arguments: Any,
    workers: Sequence[str],
    what: str,
    seconds: float = 30.0,
) -> dict[str, Any]:
    """By address: what a function returns that every given worker runs at once, outside of tasks.

    Workers that leave, fail or do not answer in time are absent.

    Raises
    ------
    ClusterError
        When the scheduler is gone.
    """
    present = living(client)
    workers = [worker for worker in workers if worker in present]
    if not workers:
        return {}

    async def call() -> Any:
        call_of_client = client.run(
            function, *arguments, workers=workers, on_error="return", asynchronous=True
        )
        try:
            return await asyncio.wait_for(call_of_client, seconds)
        except TimeoutError:
            logger.warning("%s: no answer within %g s", what, seconds)
            return {}

    returned = awaited(client, call, Watch(client, what))
    return {w: value for w, value in returned.items() if not isinstance(value, BaseException)}


def let_go(client: Client, futures: Sequence[Future]) -> None:
    """Cancel tasks, if there is anybody who could be told."""
    with suppress(OSError, TimeoutError, RuntimeError, AttributeError, ClusterError):
        if client.status == "running" and not workers_of(client).is_silent:

            async def cancel() -> None:
                await client.cancel(list(futures), force=True, asynchronous=True)

            asyncio.run_coroutine_threadsafe(cancel(), client.loop.asyncio_loop).result(
                PATIENCE.silent
            )


def asked(
    client: Client, question: Callable[[], Awaitable[T]], what: str, *, seconds: float = ANSWER
) -> T:
    """What the scheduler answers, asked by a coroutine that is run in the client's loop.

    Raises
    ------
    ClusterError
        When the scheduler is gone, or does not answer while others are asked who lives.
    OverdueError
        When it answers other questions, and this one not for some seconds.
    """
    return awaited(client, question, Watch(client, what, seconds=seconds))


def awaited(client: Client, call: Callable[[], Awaitable[T]], watch: Watch) -> T:
    """What ``call`` gives, run in the client's loop while this thread looks who lives.

    Raises
    ------
    ClusterError
        As `Watch.look`, or when what is waited for was cancelled.
    Exception
        That of ``call``.
    """

    async def called() -> T:
        try:
            return await call()
        except asyncio.CancelledError as error:
            if not str(error):
                raise  # this wait has been given up
            raise _CancelledError(str(error)) from error

    if client.status != "running":
        watch.look()  # raises; the loop may have ended too
    running = asyncio.run_coroutine_threadsafe(called(), client.loop.asyncio_loop)
    try:
        while not concurrent.futures.wait([running], timeout=LOOK_EVERY).done:
            watch.look()
        return running.result()
    except (_CancelledError, concurrent.futures.CancelledError) as error:
        raise cancelled(watch, error) from error
    finally:
        running.cancel()


def cancelled(watch: Watch, error: BaseException) -> ClusterError:
    """The error for tasks that were cancelled, with Dask's reason.

    Raises
    ------
    ClusterError
        As `Watch.look`, which mostly finds that the scheduler is gone.
    """
    watch.look()
    reason = " ".join(str(error).split())
    return ClusterError(f"{watch.what}: the tasks were cancelled{f' ({reason})' if reason else ''}")


def killed(
    client: Client, what: str, error: KilledWorker, number: int, place: str = ""
) -> ClusterError:
    """The error for a task at which a number of workers died, and of what it was made."""
    address = error.last_worker.address
    times = " one after the other" if number > 1 else ""
    at = f"task {key_split(error.task)!r}{f' of {place}' if place else ''}"
    fates = workers_of(client).fates(client, [address])
    return ClusterError(
        f"{what}: {num_workers(number)} died{times} at {at}; {fates}", address=address
    )
