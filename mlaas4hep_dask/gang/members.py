"""Runs one function on several workers at once, all or none."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from distributed import get_client, get_worker, secede

from mlaas4hep_dask.dataset.progress import PROGRESS
from mlaas4hep_dask.gang.source import KeptBlocks, source_of
from mlaas4hep_dask.gang.standings import STANDINGS, watched
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

    A member runs as ``function(source, board, progress, *arguments[i])`` on the worker at place
    ``i`` of ``workers``, outside the worker's thread pool, so that the worker goes on computing
    blocks meanwhile.

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
    TrainingError
        When one of several that wait for each other hangs; see `standings`.
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
            run,
            member,
            key=f"rank-{run}-{number}",
            workers=[worker],
            pure=False,
            priority=10,
        )
        for number, (worker, member) in enumerate(zip(workers, arguments, strict=True))
    ]
    try:
        with watched(cluster, run, what, list(workers)):
            return cluster.gather(futures, what, on=workers)
    except BaseException:
        cluster.let_go(futures)
        raise


class MembersBoard:
    """Words that members leave for each other at Dask's scheduler, as long as they run.

    Parameters
    ----------
    run : str
        What they have in common.
    """

    def __init__(self, run: str) -> None:
        self._cluster = ClusterHandle(get_client())
        self._run = run

    def leave(self, name: str, words: bytes) -> None:
        """Let all members find some words under a name."""
        self._cluster.leave(self._run, name, words)

    def find(self, name: str) -> bytes | None:
        """What was left under a name; None when there is nothing yet."""
        return self._cluster.find(self._run, name)

    def clear(self) -> None:
        """Take everything away."""
        self._cluster.clear(self._run)

    def tell(self, facts: dict[str, Any]) -> None:
        """Tell the client where a member stands that does not get on."""
        get_worker().log_event(f"{STANDINGS}-{self._run}", facts)


def _member(
    function: Callable[..., Any], blocks: KeptBlocks, run: str, arguments: tuple[Any, ...]
) -> Any:
    source, board = source_of(blocks), MembersBoard(run)
    worker = get_worker()
    secede()
    return function(source, board, partial(worker.log_event, PROGRESS), *arguments)
