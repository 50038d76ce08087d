"""What a rank is told, what it returns, and the calls that reach it on a worker.

torch is imported where a rank runs, not where it is started: a client needs none.
"""

from __future__ import annotations

import importlib
import socket
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from mlaas4hep_dask.encode.outputs import Outputs
from mlaas4hep_dask.train.assign import Assignment
from mlaas4hep_dask.train.feed import BlockSource
from mlaas4hep_dask.train.model import ModelSource

if TYPE_CHECKING:
    from mlaas4hep_dask.train.exchange import SharedMemory
    from mlaas4hep_dask.train.rank import Rank


@dataclass(frozen=True)
class RankTask:
    """All that a rank has to know; the same for every rank but for ``rank`` and ``host``.

    Parameters
    ----------
    session : str
        Name of this attempt, unlike that of any other.
    rank, num_ranks : int
        This rank and how many there are.
    host : str
        Host of the address at which this rank's worker is reached: its ranks talk there too.
    model : ModelSource
        Builds the network.
    row_shape : tuple of int
        Shape of one event: (columns,), or (channels, ny, nx) of an image.
    epochs : int
        Number of epochs.
    learning_rate : float
        Step size of Adam (Kingma and Ba 2015).
    seed : int
        Seed of initial weights and dropout.
    mean_weight : float
        Mean weight of the training events, so that weights do not change the step size.
    assignments : tuple of Assignment
        Events of the training, validation and test splits.
    outputs : Outputs
        What the network learns to give.
    regression_loss : {"mse", "huber"}
        Loss of a regression.
    balance : tuple of float
        By label, the factor on the weights in the loss; empty when all are 1.
    samples : tuple of str
        Names of the samples whose numbers stand in the place of labels, of a reconstruction.
    """

    session: str
    rank: int
    num_ranks: int
    host: str
    model: ModelSource
    row_shape: tuple[int, ...]
    epochs: int
    learning_rate: float
    seed: int
    mean_weight: float
    assignments: tuple[Assignment, Assignment, Assignment]
    outputs: Outputs
    regression_loss: Literal["mse", "huber"] = "mse"
    balance: tuple[float, ...] = ()
    samples: tuple[str, ...] = ()

    def for_rank(self, rank: int, host: str) -> RankTask:
        """The same task for another rank."""
        return replace(self, rank=rank, host=host)


@dataclass(frozen=True)
class RankFacts:
    """What a rank tells before the ranks meet.

    Parameters
    ----------
    machine : str
        Equal for ranks that can share memory.
    num_values : int or None
        Values of all gradients, or None when they are not all of 32 bits.
    """

    machine: str
    num_values: int | None


@dataclass(frozen=True)
class Meeting:
    """Where the ranks of a session meet; they are told by Dask, and by nobody else.

    Parameters
    ----------
    host, port : str and int
        Of the store in which gloo finds the addresses of all ranks.
    memory : str or None
        Memory of rank 0 for the gradients, if all ranks can share it.
    """

    host: str = ""
    port: int = 0
    memory: str | None = None


@dataclass(frozen=True)
class SplitMetrics:
    """Number of events, loss and other metrics over all ranks; None where one is not defined."""

    num_events: int
    loss: float | None
    values: Mapping[str, Any]

    def as_json(self) -> dict[str, Any]:
        """All of them as JSON values."""
        return {"num_events": self.num_events, "loss": self.loss, **self.values}


@dataclass(frozen=True)
class EpochResult:
    """What one rank returns after an epoch.

    Parameters
    ----------
    epoch : int
        Number of the epoch, from 1.
    splits : dict of str to SplitMetrics
        ``train``, measured while learning, with dropout at work; ``validation``, measured at the
        end of the epoch; and at the end of the last one ``test``.
    detail : mapping
        Curves and tables of the test split, as JSON values; empty before the last epoch.
    num_events : int
        Training events that this rank went through.
    state : bytes or None
        Checkpoint of rank 0, to be given to the next `run_epoch` of a new session.
    """

    epoch: int
    splits: dict[str, SplitMetrics]
    detail: Mapping[str, Any]
    num_events: int
    state: bytes | None


_stores: dict[str, Any] = {}
_memories: dict[str, SharedMemory] = {}
_ranks: dict[str, Rank] = {}
_threads: dict[str, ThreadPoolExecutor] = {}


def import_rank(num_ranks: int) -> None:
    """Import what one of ``num_ranks`` ranks needs, which takes a second or two."""
    importlib.import_module("mlaas4hep_dask.train.rank")
    if num_ranks > 1:
        importlib.import_module("torch._dynamo")  # DistributedDataParallel would


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
