"""Runs one function on several workers at once, all or none."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from distributed import get_worker, secede

from mlaas4hep_dask.dataset.progress import PROGRESS
from mlaas4hep_dask.gang.source import KeptBlocks, source_of
from mlaas4hep_dask.waiting import ClusterHandle


def run_members(
    cluster: ClusterHandle,
    function: Callable[..., Any],
    arguments: Sequence[tuple[Any, ...]],
    *,
    workers: Mapping[str, str],
    blocks: KeptBlocks,
    what: str,
) -> list[Any]:
    """What each member returns.

    A member runs as ``function(source, progress, *arguments[i])`` on the worker at place ``i`` of
    ``workers``, outside the worker's thread pool, so that the worker goes on computing blocks
    meanwhile.

    Parameters
    ----------
    cluster : ClusterHandle
        Whose workers they are.
    function : callable
        What each member runs.
    arguments : sequence of tuple
        Of each member.
    workers : mapping of str to str
        Address and process of each, from `mlaas4hep_dask.waiting.processes`.
    blocks : KeptBlocks
        What the source gives.
    what : str
        A name for what they do, to be told while it is waited for.

    Raises
    ------
    LostWorkerError
        When a worker dies, be it after its member has ended and before its result was fetched;
        Dask by itself would wait for it for ever.
    Exception
        The first error of a member; the others are cancelled.
    """
    run = uuid.uuid4().hex[:12]
    shared = cluster.share(blocks, f"plan-{blocks.token}-{run}")
    futures = [
        cluster.submit(
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
        return cluster.gather(futures, what, on=workers)
    except BaseException:
        cluster.let_go(futures)
        raise


def _member(function: Callable[..., Any], plan: KeptBlocks, arguments: tuple[Any, ...]) -> Any:
    source = source_of(plan)
    worker = get_worker()
    secede()
    return function(source, partial(worker.log_event, PROGRESS), *arguments)
