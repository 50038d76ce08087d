"""Waits for what a cluster does, each with a condition of life and a reason that is told."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from dask.utils import key_split
from distributed import Client, Future, wait
from distributed.scheduler import KilledWorker

from mlaas4hep_dask.errors import ClusterError
from mlaas4hep_dask.waiting.groups import Group, is_of
from mlaas4hep_dask.waiting.patience import PATIENCE, Patience
from mlaas4hep_dask.waiting.shared import is_given_up
from mlaas4hep_dask.waiting.workers import (
    LostWorkerError,
    living,
    memory_ends,
    num_memory_ends,
    processes,
    size,
    workers_of,
)

logger = logging.getLogger("mlaas4hep_dask.waiting")

T = TypeVar("T")

LOOK_EVERY = 1.0  # seconds between looks at who lives
SHARED_RETRIES = 100  # of a value that tasks share, each after a death of a worker
MEMORY_ENDS = 3  # times that workers were ended for memory, none being left


def gather(
    client: Client,
    futures: Sequence[Future],
    what: str,
    *,
    on: Mapping[str, str] | None = None,
    group: Group | None = None,
    seconds: float | None = None,
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
    patience : Patience
        For how long something may be lacking.

    Raises
    ------
    OverdueError
        When they have not ended after ``seconds``.
    LostWorkerError
        When a worker of ``on`` has left.
    ClusterError
        When the scheduler is gone, or no worker is left that could run the tasks.
    Exception
        The first error of a task.
    """
    futures = list(futures)
    if not futures:
        return []

    async def call() -> list[Any]:
        failed = await _first_failed(client, futures)
        for _ in range(SHARED_RETRIES):
            if not (failed and is_given_up(await failed[0].exception(asynchronous=True))):
                break
            logger.info("%s: what its tasks share is sent again, after deaths of workers", what)
            await client.retry(_failed(futures), asynchronous=True)
            failed = await _first_failed(client, futures)
        return list(await client.gather(failed or futures, asynchronous=True))  # or raises

    watch = _Watch(client, what, on=on, group=group, seconds=seconds, patience=patience)
    return _awaited(client, call, watch)


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


class OverdueError(ClusterError):
    """Tasks have not ended in the time that they had."""


class _FailedError(Exception):
    pass


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

    _awaited(client, ended, _Watch(client, what, group=group, patience=patience))


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
    watch = _Watch(client, what, group=group, need=number, patience=patience)
    deadline = time.monotonic() + seconds
    while True:
        present = watch.look(alone=False)
        members = [a for a, info in present.items() if group is None or is_of(info, group)]
        if len(members) >= number:
            return
        if time.monotonic() > deadline:
            of = f", of which {len(members)} are {group}" if len(members) < len(present) else ""
            raise ClusterError(
                f"{what}: {_workers(number)} needed, and after {seconds:g} s the cluster has "
                f"{len(present)}{of}{_ended(client)}",
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
        asked = client.run(
            function, *arguments, workers=workers, on_error="return", asynchronous=True
        )
        try:
            return await asyncio.wait_for(asked, seconds)
        except TimeoutError:
            logger.warning("%s: no answer within %g s", what, seconds)
            return {}

    returned = _awaited(client, call, _Watch(client, what))
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


def _awaited(client: Client, call: Callable[[], Awaitable[T]], watch: _Watch) -> T:
    """What ``call`` gives, run in the client's loop while this thread looks who lives."""

    async def called() -> T:
        return await call()

    if client.status != "running":
        watch.look()  # raises; the loop may have ended too
    running = asyncio.run_coroutine_threadsafe(called(), client.loop.asyncio_loop)
    try:
        while not concurrent.futures.wait([running], timeout=LOOK_EVERY).done:
            watch.look()
        return running.result()
    except KilledWorker as error:
        address = error.last_worker.address
        raise ClusterError(
            f"{watch.what}: {_died(error.allowed_failures + 1)} at "
            f"task {key_split(error.task)!r}; {workers_of(client).fates(client, [address])}",
            address=address,
        ) from error
    except (asyncio.CancelledError, concurrent.futures.CancelledError) as error:
        watch.look()  # mostly the scheduler is gone
        raise ClusterError(f"{watch.what}: the tasks were cancelled") from error
    finally:
        running.cancel()


def _died(number: int) -> str:
    return f"{_workers(number)} died{' one after the other' if number > 1 else ''}"


def _workers(number: int) -> str:
    return f"{number} worker" if number == 1 else f"{number} workers"


def _ended(client: Client) -> str:
    ended = memory_ends(client)
    if not ended:
        return ""
    return (
        f"; nannies ended workers {num_memory_ends(client)} times for memory, the last with "
        f"{size(list(ended.values())[-1])} in use: give them a larger limit (cluster.memory_limit)"
    )


class _Watch:
    """Looks who lives during one wait, tells what is lacking, and ends it where nobody could."""

    def __init__(
        self,
        client: Client,
        what: str,
        *,
        on: Mapping[str, str] | None = None,
        group: Group | None = None,
        need: int = 1,
        seconds: float | None = None,
        patience: Patience = PATIENCE,
    ) -> None:
        self.what = what
        self._patience = patience
        self._client = client
        self._workers = workers_of(client)
        self._on = on or {}
        self._group = group
        self._need = need
        # Those that wait on workers are waited for by a client, which has the word.
        self._level = logging.INFO if client.id.startswith("Client-worker") else logging.WARNING
        self._seconds = math.inf if seconds is None else seconds
        self._began = self._told = time.monotonic()
        self._lacking_since: float | None = None
        self._ends = 0  # workers ended for memory before anything was lacking

    def look(self, *, alone: bool = True) -> Mapping[str, Mapping[str, Any]]:
        """Who is there now.

        Raises
        ------
        LostWorkerError, OverdueError, ClusterError
            When what is waited for cannot come any more; if ``alone``, for want of workers too.
        """
        present = self._workers.look(self._client)
        now_there = processes(present)
        lost = [worker for worker, process in self._on.items() if now_there.get(worker) != process]
        if lost:
            fates = self._workers.fates(self._client, lost)
            raise LostWorkerError(f"{self.what}: {fates}", workers=lost)
        lack, bound = self._lack(present)
        now = time.monotonic()
        if now - self._began > self._seconds:
            raise OverdueError(f"{self.what}: no end after {self._seconds:g} s")
        if not lack:
            self._lacking_since = None
            if now - self._told > self._patience.long:
                self._told = now
                logger.log(self._level, "%s: %s", self.what, self._at_work(present))
            return present
        if self._lacking_since is None:
            self._lacking_since = now
            self._told = now - self._patience.next_word + self._patience.first_word
            self._ends = num_memory_ends(self._client)
        lacking = now - self._lacking_since
        if now - self._told >= self._patience.next_word:
            self._told = now
            logger.log(self._level, "%s: %s, for %.0f s now", self.what, lack, lacking)
        if not present and num_memory_ends(self._client) - self._ends >= MEMORY_ENDS:
            raise ClusterError(f"{self.what}: no worker lives{_ended(self._client)}")
        if alone and lacking > bound:
            text = f"{self.what}: {lack}, for {lacking:.0f} s, and no end to it is in sight"
            raise ClusterError(text + _ended(self._client))
        return present

    def _lack(self, present: Mapping[str, Mapping[str, Any]]) -> tuple[str, float]:
        """What is lacking, and for how many seconds it may."""
        if not present:
            return f"waiting for {_workers(self._need)} (none is here)", self._patience.no_worker
        members = [info for info in present.values() if not self._group or is_of(info, self._group)]
        if len(members) < self._need:
            of = f" of {self._group!r}" if len(members) < len(present) else ""
            text = f"waiting for {_workers(self._need)}{of} ({len(members)} of {self._need} here)"
            return text, self._patience.no_worker
        concerned = {a: info for a, info in present.items() if a in self._on} or dict(present)
        full = [address for address, info in concerned.items() if _is_stuck(info)]
        if full and (len(full) == len(concerned) or self._on):
            info = concerned[full[0]]
            used, limit = info["metrics"].get("memory", 0), info["memory_limit"] or 0
            text = (
                f"worker {full[0]} is paused: {size(used)} of its limit of {size(limit)} of memory "
                "are in use, and it is at no task"
            )
            return text, self._patience.paused
        quiet = max(
            self._patience.silent, len(present) / 10
        )  # the more there are, the less often each is heard
        silent = [address for address in concerned if self._workers.silent_for(address) > quiet]
        if silent:
            since = time.time() - self._workers.silent_for(silent[0])
            clock = time.strftime("%H:%M:%S", time.localtime(since))
            return (
                f"no sign of life of {self._workers.name(silent[0])} since {clock}",
                self._patience.mute,
            )
        return "", 0.0

    def _at_work(self, present: Mapping[str, Mapping[str, Any]]) -> str:
        tasks = sum(
            sum(info["metrics"].get("task_counts", {}).get(kind, 0) for kind in AT_WORK)
            for info in present.values()
        )
        seconds = time.monotonic() - self._began
        return f"{_workers(len(present))} at {tasks} tasks, after {seconds:.0f} s"


AT_WORK = ("executing", "long-running")


def _is_stuck(info: Mapping[str, Any]) -> bool:
    """True for a worker that takes no task, for lack of memory, and is at none."""
    counts = info["metrics"].get("task_counts", {})
    return info["status"] == "paused" and not any(counts.get(kind) for kind in AT_WORK)
