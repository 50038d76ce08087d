"""The calls that reach a rank on a worker.

torch is imported where a rank runs, not where it is started: a client needs none.
"""

from __future__ import annotations

import importlib
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from mlaas4hep_dask.train.feed import BlockSource
from mlaas4hep_dask.train.session import EpochResult, Meeting, RankFacts, RankTask

if TYPE_CHECKING:
    from mlaas4hep_dask.train.exchange import SharedMemory
    from mlaas4hep_dask.train.rank import Rank

_stores: dict[str, Any] = {}
_memories: dict[str, SharedMemory] = {}
_ranks: dict[str, Rank] = {}
_threads: dict[str, ThreadPoolExecutor] = {}


def import_rank() -> None:
    """Import what a rank needs, which takes a second or two."""
    importlib.import_module("mlaas4hep_dask.train.rank")
    importlib.import_module("torch._dynamo")  # torch's optimisers would


def open_meeting(host: str, session: str, facts: Sequence[RankFacts]) -> Meeting:
    """Open the place where the ranks of a session meet, on this worker.

    Parameters
    ----------
    host : str
        Of this worker's address, at which alone the store listens: by itself it would listen at
        all addresses of the machine, and answer whoever asks.
    session : str
        Name of the session.
    facts : sequence of RankFacts
        Of all ranks.
    """
    from torch.distributed import TCPStore  # type: ignore[attr-defined]  # untyped there

    from mlaas4hep_dask.train.exchange import SharedMemory, SharedMemoryExchange
    from mlaas4hep_dask.train.rank import TIMEOUT

    family, *_, address = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
    listener = socket.create_server((str(address[0]), 0), family=family)
    port: int = listener.getsockname()[1]
    _stores[session] = TCPStore(
        host,
        port,
        is_master=True,
        wait_for_workers=False,
        timeout=TIMEOUT,
        master_listen_fd=listener.detach(),
        use_libuv=False,  # a few ranks need none, and some builds of torch (Debian's) have none
    )
    memory = None
    capacity = facts[0].num_values
    if capacity is not None and len({own.machine for own in facts}) == 1:
        nbytes = SharedMemoryExchange.nbytes(num_ranks=len(facts), capacity=capacity)
        memory = SharedMemory.create(nbytes)
    if memory is not None:
        _memories[session] = memory
    return Meeting(host, port, None if memory is None else memory.path)


def open_rank(task: RankTask, state: bytes | None) -> RankFacts:
    """Make a rank on this worker.

    Parameters
    ----------
    task : RankTask
        What to do.
    state : bytes or None
        Checkpoint to start from.
    """
    for earlier in list(_threads):
        close(earlier)
    # All epochs run in one thread: torch's number of threads is a thread's own setting.
    thread = _threads[task.session] = ThreadPoolExecutor(1, thread_name_prefix="rank")
    return thread.submit(_open_rank, task, state).result()


def _open_rank(task: RankTask, state: bytes | None) -> RankFacts:
    from mlaas4hep_dask.train.rank import Rank

    rank = _ranks[task.session] = Rank(task, state)
    return rank.facts()


def run_epoch(
    source: BlockSource,
    progress: Callable[[int], None],
    task: RankTask,
    epoch: int,
    meeting: Meeting,
) -> EpochResult:
    """Train one epoch on this worker as the given rank, which `open_rank` has made.

    Parameters
    ----------
    source : BlockSource
        Gives blocks.
    progress : callable
        Told numbers of events done, now and then.
    task : RankTask
        What to do.
    epoch : int
        Number of the epoch, from 1.
    meeting : Meeting
        Where the ranks meet before their first epoch.
    """
    thread = _threads[task.session]
    return thread.submit(_run_epoch, source, progress, task, epoch, meeting).result()


def _run_epoch(
    source: BlockSource,
    progress: Callable[[int], None],
    task: RankTask,
    epoch: int,
    meeting: Meeting,
) -> EpochResult:
    rank = _ranks[task.session]
    rank.join(meeting)
    if (memory := _memories.pop(task.session, None)) is not None:
        memory.close()  # all ranks have opened it
    return rank.run_epoch(source, progress, epoch)


def abandon(session: str) -> None:
    """Make this worker's rank of the session stop waiting for others."""
    rank = _ranks.get(session)
    if rank is not None and rank.exchange is not None:
        rank.exchange.abandoned = True


def close(session: str) -> None:
    """End this worker's part in a session, if it has one."""
    _stores.pop(session, None)
    if (memory := _memories.pop(session, None)) is not None:
        memory.close()
    rank = _ranks.pop(session, None)
    if rank is not None:
        rank.close()
    thread = _threads.pop(session, None)
    if thread is not None:
        thread.shutdown(wait=False)
