"""Hours of a run at a place, from rates: arithmetic alone, which `projection.py` feeds.

docs/explanation/projection.md explains the model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mlaas4hep_dask.config.training import Training
from mlaas4hep_dask.gang.keeping import SHARES

HOUR = 3600.0  # seconds
TRAINING_FRACTION = 0.64  # of all events, by default
CHECKPOINT = 60.0 * (Training().checkpoint_minutes or math.inf)  # seconds, by default


@dataclass(frozen=True)
class Rates:
    """What one process takes per event of the data set, in processor seconds, and bytes per event.

    Parameters
    ----------
    read : float
        To read all branches.
    specs : float
        Pass 1: to read and measure.
    encode : float
        Pass 2: to read and encode to dense rows.
    block : float
        To read and encode to packed blocks, from which ranks make the rows as they use them.
    epoch : float
        To learn from the training events and measure the validation events, once.
    last : float
        The same of the last epoch, which measures the test events too.
    stored : float
        Compressed bytes.
    packed : float
        Bytes of a packed block.
    """

    read: float
    specs: float
    encode: float
    block: float
    epoch: float
    last: float
    stored: float
    packed: float


@dataclass(frozen=True)
class Place:
    """Where a run takes place.

    Parameters
    ----------
    name : str
        For people.
    readers : int
        Processes that read, measure and encode.
    trainers : int
        Ranks.
    apart : bool
        Trainers are workers of their own; else they are some of the readers.
    worker_bandwidth : float
        Bytes per second that one worker gets when nobody else reads.
    storage_bandwidth : float
        Bytes per second that all workers get together.
    memory, disk : float
        Bytes of one worker.
    wait : float
        Seconds that a job is in the queue, the first and every later one.
    start : float
        Seconds from the start of a job to its first task.
    lifetime : float
        Seconds after which a worker ends; infinite without a walltime.
    partition : float
        Events of one task.
    dispatch : float
        Seconds that the scheduler takes for one task, whoever runs it.
    batch : int
        Events of one rank in a step.
    exchange : float
        Seconds in which the ranks average their gradients, in every step.
    checkpoint : float
        Seconds between two checkpoints of the ranks.
    """

    name: str
    readers: int
    trainers: int
    apart: bool = True
    worker_bandwidth: float = math.inf
    storage_bandwidth: float = math.inf
    memory: float = math.inf
    disk: float = math.inf
    wait: float = 0.0
    start: float = 0.0
    lifetime: float = math.inf
    partition: float = 1e5
    dispatch: float = 0.0
    batch: int = 1000
    exchange: float = 0.0
    checkpoint: float = CHECKPOINT


@dataclass(frozen=True)
class Phase:
    """Seconds of a phase, what bounds it, and which of its seconds were lost by walltimes.

    ``bound`` is ``compute``, ``network`` (of the workers), ``storage``, ``scheduler``,
    ``gradients``, or ``walltime`` where the phase never ends because a worker does not live until
    something of it is kept.
    """

    seconds: float
    bound: str
    redone: float = 0.0


@dataclass(frozen=True)
class Projection:
    """A whole run: pass 1 and pass 2 by themselves, all epochs, and everything with the queue.

    ``kept`` tells where blocks stay between epochs: ``memory``, ``disk`` or ``none``.
    """

    events: float
    specs: Phase
    encode: Phase
    train: Phase
    total: float
    kept: str


def project(events: float, rates: Rates, place: Place, *, epochs: int) -> Projection:
    """The seconds of a run over so many events."""
    first, second = (
        interrupted(one_pass(events, cost, rates.stored, place), place, place.partition * cost)
        for cost in (rates.specs, rates.encode)
    )
    where = kept(events, rates, place)
    phases = epoch_phases(events, rates, place, epochs, where)
    slowest = max(phases, key=lambda phase: phase.seconds)
    learning = Phase(sum(phase.seconds for phase in phases), slowest.bound)
    train = interrupted(learning, place, min(place.checkpoint, slowest.seconds))
    total = place.wait + place.start + first.seconds + train.seconds
    return Projection(events, first, second, train, total, where)


def one_pass(events: float, cost: float, stored: float, place: Place) -> Phase:
    """All readers go through all events once, and nothing ends them.

    A worker fetches the bytes of a partition before it uncompresses them: the two take turns. The
    storage and the scheduler are shared, so that no number of workers is faster than these.
    """
    compute = events * cost / place.readers
    network = events * stored / place.readers / place.worker_bandwidth
    workers = Phase(compute + network, "compute" if compute >= network else "network")
    storage = Phase(events * stored / place.storage_bandwidth, "storage")
    scheduler = Phase(events / place.partition * place.dispatch, "scheduler")
    return max(workers, storage, scheduler, key=lambda phase: phase.seconds)


def interrupted(phase: Phase, place: Place, piece: float) -> Phase:
    """The same by workers that end after their lifetime, and whose next job waits in the queue.

    What is complete of it is kept, in pieces of so many seconds: tasks, or what lies between two
    checkpoints. Half a piece is done again.
    """
    useful = place.lifetime - place.start - piece / 2
    if useful <= 0:
        return Phase(math.inf, "walltime", math.inf)
    ends = max(math.ceil(phase.seconds / useful) - 1, 0)
    lost = ends * (place.wait + place.start + piece / 2)
    return Phase(phase.seconds + lost, phase.bound, ends * piece / 2)


def kept(events: float, rates: Rates, place: Place) -> str:
    """Where there is room for all blocks, by the rules of a run."""
    packed = events * rates.packed
    if packed <= SHARES.memory * place.readers * place.memory:
        return "memory"
    return "disk" if packed / place.trainers <= SHARES.disk * place.disk else "none"


def epoch_phases(
    events: float, rates: Rates, place: Place, epochs: int, where: str
) -> Sequence[Phase]:
    """Each epoch by itself, if nothing ends the ranks.

    The first one reads, and all do where blocks are kept nowhere. Readers apart from the ranks work
    meanwhile: the slower of the two counts. Otherwise the same processors do both.
    """
    reading = one_pass(events, rates.block, rates.stored, place)
    packed = events * rates.packed / place.trainers
    steps = TRAINING_FRACTION * events / place.batch / place.trainers
    gradients = steps * place.exchange if place.trainers > 1 else 0.0
    in_rank = where == "disk" or packed <= SHARES.memory * place.memory
    phases = []
    for epoch in range(1, epochs + 1):
        compute = events * (rates.last if epoch == epochs else rates.epoch) / place.trainers
        learning = Phase(compute + gradients, "compute" if compute >= gradients else "gradients")
        reads = epoch == 1 or where == "none"
        if not place.apart:
            more = reading.seconds if reads else 0.0
            slower = reading if more > learning.seconds else learning
            phases.append(Phase(learning.seconds + more, slower.bound))
            continue
        others = [learning]
        if reads:
            others.append(reading)
        if reads or not in_rank:  # blocks travel from those who made them to the ranks
            others.append(Phase(packed / place.worker_bandwidth, "network"))
        phases.append(max(others, key=lambda phase: phase.seconds))
    return phases
