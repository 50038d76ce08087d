"""What a rank is told, and what it returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from mlaas4hep_dask.objective import Objective
from mlaas4hep_dask.train.assign import Assignments
from mlaas4hep_dask.train.given import Given
from mlaas4hep_dask.train.method import Method
from mlaas4hep_dask.train.model import ModelSource


@dataclass(frozen=True)
class RankTask:
    """All that a rank has to know; the same for every rank but for its place and device.

    Parameters
    ----------
    session : str
        Name of this attempt, unlike that of any other.
    rank, num_ranks : int
        This rank and how many there are.
    host : str
        Host of the address at which this rank's worker is reached: ranks talk there too, and
        listen nowhere else.
    model : ModelSource
        Builds the network.
    given : Given
        What the model is told of events and of what is learned.
    learning_rate : float
        Step size, where the method names no other.
    seed : int
        Seed of initial weights and dropout.
    mean_weight : float
        Mean weight of the training events, so that weights do not change the step size.
    assignments : Assignments
        Events of the training, validation and test splits.
    objective : Objective
        What the network learns to give.
    method : Method
        How it learns.
    epochs : int
        Epochs of the training, if nothing ends it early.
    passes : int
        How often an epoch goes through its events.
    num_chunks : int
        Chunks of the training events; with more than one, an epoch goes through one of them.
    monitor : str
        Metric of the validation events by which epochs are compared.
    is_more_better : bool
        Whether that is to be large.
    balance : tuple of float
        By label, the factor on the weights in the loss; empty when all are 1.
    samples : tuple of str
        Names of all samples in their order.
    device : str
        What this rank computes on, as torch calls it.
    """

    session: str
    rank: int
    num_ranks: int
    host: str
    model: ModelSource
    given: Given
    learning_rate: float
    seed: int
    mean_weight: float
    assignments: Assignments
    objective: Objective
    method: Method = field(default_factory=Method)
    epochs: int = 1
    passes: int = 1
    num_chunks: int = 1
    monitor: str = "loss"
    is_more_better: bool = False
    balance: tuple[float, ...] = ()
    samples: tuple[str, ...] = ()
    device: str = "cpu"

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Shape of one event: (columns,), or (channels, ny, nx) of an image."""
        return self.given.row_shape

    def for_rank(self, rank: int, host: str, device: str = "cpu") -> RankTask:
        """The same task for another rank."""
        return replace(self, rank=rank, host=host, device=device)


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
class SplitMetrics:
    """Number of events, loss and other metrics over all ranks; None where one is not defined."""

    num_events: int
    loss: float | None
    values: Mapping[str, Any]
    detail: Mapping[str, Any] = field(default_factory=dict)  # curves and tables, as JSON values

    def as_json(self) -> dict[str, Any]:
        """All but the details, as JSON values."""
        return {"num_events": self.num_events, "loss": self.loss, **self.values}


@dataclass(frozen=True)
class EpochResult:
    """What one rank returns after an epoch.

    Parameters
    ----------
    epoch : int
        Number of the epoch, from 1.
    splits : dict of str to SplitMetrics
        ``train`` and ``validation``, measured at the end of the epoch with the network as it is
        then; of ``train`` some events, chosen at random. Its values have their number
        (``num_measured``), the mean loss while the network learned (``learning_loss``), and the
        step size at the end (``learning_rate``).
    num_events : int
        Training events that this rank went through.
    state : bytes or None
        Checkpoint of rank 0, to be given to the next `run_epoch` of a new session.
    waited : float
        Seconds in which this rank waited for rows.
    rounds : int
        Rounds of the epoch.
    is_last : bool
        Whether a hook has asked to stop.
    window : int
        The window that comes next, where the epoch is not over.
    part : bytes or None
        What this rank goes on from, where the epoch is not over; there is nothing measured then.
    """

    epoch: int
    splits: dict[str, SplitMetrics]
    num_events: int
    state: bytes | None
    waited: float = 0.0
    rounds: int = 1
    is_last: bool = False
    window: int = 0
    part: bytes | None = None
