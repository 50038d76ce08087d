"""What a rank is told, and what it returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from mlaas4hep_dask.objective import Objective
from mlaas4hep_dask.train.assign import Assignment
from mlaas4hep_dask.train.loss import LossSource
from mlaas4hep_dask.train.model import ModelSource


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
        Host of the address at which this rank's worker is reached: ranks talk there too, and
        listen nowhere else.
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
    objective : Objective
        What the network learns to give.
    loss : LossSource
        The loss.
    balance : tuple of float
        By label, the factor on the weights in the loss; empty when all are 1.
    samples : tuple of str
        Names of all samples in their order.
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
    objective: Objective
    loss: LossSource = field(default_factory=LossSource)
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
    waited : float
        Seconds in which this rank waited for rows.
    """

    epoch: int
    splits: dict[str, SplitMetrics]
    detail: Mapping[str, Any]
    num_events: int
    state: bytes | None
    waited: float = 0.0
