"""The calls that reach a rank on a worker.

torch is imported where a rank runs, not where it is started: a client needs none.
"""

from __future__ import annotations

import importlib
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from typing import TYPE_CHECKING, Any

from mlaas4hep_dask.train.feed import BlockSource
from mlaas4hep_dask.train.session import EpochResult, RankFacts, RankTask, SplitMetrics
from mlaas4hep_dask.train.standing import LOOK_EVERY, look_at

if TYPE_CHECKING:
    from mlaas4hep_dask.train.exchange import SharedMemory
    from mlaas4hep_dask.train.meeting import Board
    from mlaas4hep_dask.train.rank import Rank

_memories: dict[str, SharedMemory] = {}
_ranks: dict[str, Rank] = {}
_threads: dict[str, _Thread] = {}


class _Thread:
    """A thread that does one thing after the other, and that nobody waits for when it ends.

    A rank that waits in vain for one that was cut off does so for minutes; the threads of
    `concurrent.futures` would keep its process alive that long.
    """

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None]
        self._work = queue.SimpleQueue()
        thread = threading.Thread(target=self._run, name="rank", daemon=True)
        thread.start()
        assert thread.ident is not None  # it has been started
        self._ident = thread.ident

    def _run(self) -> None:
        while (item := self._work.get()) is not None:
            future, call = item
            try:
                future.set_result(call())
            except BaseException as error:  # handed to who has asked
                future.set_exception(error)

    def do(
        self,
        function: Callable[..., Any],
        *arguments: Any,
        look: Callable[[int], None] = lambda _: None,
    ) -> Any:
        """What a function returns; ``look`` is given the thread's number now and then."""
        future: Future[Any] = Future()
        self._work.put((future, lambda: function(*arguments)))
        while not wait([future], LOOK_EVERY).done:
            look(self._ident)
        return future.result()

    def end(self) -> None:
        """Do no more after this."""
        self._work.put(None)


def import_rank() -> None:
    """Import what a rank needs, which takes a second or two."""
    importlib.import_module("mlaas4hep_dask.train.rank")
    importlib.import_module("torch._dynamo")  # torch's optimisers would


def open_memory(session: str, facts: Sequence[RankFacts]) -> str | None:
    """The path of new memory of this worker for the gradients; None if ranks cannot share it.

    Parameters
    ----------
    session : str
        Name of the session.
    facts : sequence of RankFacts
        Of all ranks.
    """
    from mlaas4hep_dask.train.exchange import SharedMemory, SharedMemoryExchange

    capacity = facts[0].num_values
    if capacity is None or len({rank.machine for rank in facts}) > 1:
        return None
    nbytes = SharedMemoryExchange.nbytes(num_ranks=len(facts), capacity=capacity)
    memory = SharedMemory.create(nbytes)
    if memory is None:
        return None
    _memories[session] = memory
    return memory.path


def open_rank(task: RankTask, state: bytes | None, parts: Sequence[bytes] = ()) -> RankFacts:
    """Make a rank on this worker.

    Parameters
    ----------
    task : RankTask
        What to do.
    state : bytes or None
        Checkpoint to start from.
    parts : sequence of bytes, optional
        Where it is one within an epoch: what this rank has left, or all of another number.
    """
    for earlier in list(_threads):
        close(earlier)
    # All epochs run in one thread: torch's number of threads is a thread's own setting.
    thread = _threads[task.session] = _Thread()
    opened: RankFacts = thread.do(_open_rank, task, state, parts)
    return opened


def _open_rank(task: RankTask, state: bytes | None, parts: Sequence[bytes]) -> RankFacts:
    from mlaas4hep_dask.train.rank import Rank

    rank = _ranks[task.session] = Rank(task, state, parts)
    return rank.facts()


def run_epoch(
    source: BlockSource,
    board: Board,
    progress: Callable[[int], None],
    task: RankTask,
    what: tuple[int, float | None],
    memory: str | None,
) -> EpochResult:
    """Train one epoch, or a part of it, on this worker as a rank that `open_rank` has made.

    Parameters
    ----------
    source : BlockSource
        Gives blocks.
    board : Board
        Where the ranks find each other before their first epoch.
    progress : callable
        Told numbers of events done, now and then.
    task : RankTask
        What to do.
    what : tuple of (int, float or None)
        Number of the epoch, from 1, and after how many seconds to pause.
    memory : str or None
        Memory of rank 0 for the gradients, if all ranks can share it.
    """
    thread = _threads[task.session]
    result: EpochResult = thread.do(
        _run_epoch, source, board, progress, task, what, memory, look=_look(board, task)
    )
    return result


def _run_epoch(
    source: BlockSource,
    board: Board,
    progress: Callable[[int], None],
    task: RankTask,
    what: tuple[int, float | None],
    memory: str | None,
) -> EpochResult:
    return _joined(board, task, memory).run_epoch(source, progress, *what)


def measure_split(
    source: BlockSource,
    board: Board,
    progress: Callable[[int], None],
    task: RankTask,
    what: tuple[str, bytes | None],
    memory: str | None,
) -> SplitMetrics:
    """Measure a split on this worker as the given rank, with the network of a checkpoint.

    Parameters
    ----------
    source, board, progress, task, memory
        As of `run_epoch`.
    what : tuple of (str, bytes or None)
        Name of the split, and a checkpoint unless the network is to stay as it is.
    """
    del progress
    result: SplitMetrics = _threads[task.session].do(
        _measure_split, source, board, task, what, memory, look=_look(board, task)
    )
    return result


def _measure_split(
    source: BlockSource,
    board: Board,
    task: RankTask,
    what: tuple[str, bytes | None],
    memory: str | None,
) -> SplitMetrics:
    rank = _joined(board, task, memory)
    split, state = what
    if state is not None:
        rank.take_up(state)
    return rank.measure(source, split)


def _look(board: Board, task: RankTask) -> Callable[[int], None]:
    """What tells of a rank that does not get on, given the number of its thread."""
    rank = _ranks[task.session]

    def look(thread: int) -> None:
        by_torch = task.num_ranks > 1 and rank.group.exchange is None
        if (facts := look_at(thread, rank.learner.pulse, by_torch=by_torch)) is not None:
            board.tell({"rank": task.rank, **facts})

    return look


def _joined(board: Board, task: RankTask, memory: str | None) -> Rank:
    """The rank, once it has met the others."""
    rank = _ranks[task.session]
    rank.join(board, memory)
    if (shared_memory := _memories.pop(task.session, None)) is not None:
        shared_memory.close()  # all ranks have opened it
    return rank


def abandon(session: str) -> None:
    """Make this worker's rank of the session stop waiting for others."""
    rank = _ranks.get(session)
    if rank is not None:
        rank.group.abandon()


def close(session: str) -> None:
    """End this worker's part in a session, if it has one."""
    if (memory := _memories.pop(session, None)) is not None:
        memory.close()
    rank = _ranks.pop(session, None)
    if rank is not None:
        rank.group.close()
    thread = _threads.pop(session, None)
    if thread is not None:
        thread.end()
