"""Runs one function on several workers at once, all or none."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from distributed import Client, Future, get_worker, secede, wait

from mlaas4hep_dask.dataset.source import BlockPlan, source_of
from mlaas4hep_dask.dataset.tasks import PROGRESS
from mlaas4hep_dask.errors import ClusterError

LOOK_EVERY = 2.0  # seconds between looks at whether all workers are still there


class LostWorkerError(ClusterError):
    """A worker of a gang has died (facts: workers)."""


def run_gang(
    client: Client,
    function: Callable[..., Any],
    arguments: Sequence[tuple[Any, ...]],
    *,
    workers: Sequence[str],
    blocks: BlockPlan,
) -> list[Any]:
    """What each member returns.

    A member runs as ``function(source, progress, *arguments[i])`` on ``workers[i]``, outside the
    worker's thread pool, so that the worker goes on computing blocks meanwhile.

    Raises
    ------
    LostWorkerError
        When a worker dies; Dask by itself would wait for it for ever.
    Exception
        The first error of a member; the others are cancelled.
    """
    run = uuid.uuid4().hex[:12]
    shared = client.submit(_member_plan, blocks, key=f"plan-{blocks.token}-{run}")
    futures = [
        client.submit(
            _member,
            function,
            shared,
            member,
            key=f"rank-{run}-{number}",
            workers=[worker],
            pure=False,
            priority=10,
        )
        for number, (worker, member) in enumerate(zip(workers, arguments, strict=True))
    ]
    try:
        _wait(client, futures, workers)
        return list(client.gather(futures))
    except BaseException:
        client.cancel(futures, force=True)
        raise


def _wait(client: Client, futures: Sequence[Future], workers: Sequence[str]) -> None:
    pending = set(futures)
    while pending:
        try:
            with client.as_current():
                done, pending = wait(pending, timeout=LOOK_EVERY, return_when="FIRST_COMPLETED")
        except TimeoutError:
            done = set()
        alive = client.scheduler_info(n_workers=-1)["workers"]
        lost = [worker for worker in workers if worker not in alive]
        if lost and pending:
            raise LostWorkerError(f"workers {', '.join(lost)} have died", workers=lost)
        for future in done:
            if future.status != "finished":
                future.result()  # raises


def _member_plan(plan: BlockPlan) -> BlockPlan:
    return plan


def _member(function: Callable[..., Any], plan: BlockPlan, arguments: tuple[Any, ...]) -> Any:
    get_worker()
    source = source_of(plan)
    worker = get_worker()
    secede()
    return function(source, partial(worker.log_event, PROGRESS), *arguments)
