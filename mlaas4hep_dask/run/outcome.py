"""What a training leaves behind: a checkpoint of every epoch, and which one is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from mlaas4hep_dask.config import Config
from mlaas4hep_dask.objective import Objective
from mlaas4hep_dask.train.course import Course
from mlaas4hep_dask.train.session import EpochResult


@dataclass(frozen=True)
class Checkpoint:
    """Metrics of one epoch over all ranks, as JSON values, and its checkpoint.

    The state is None where neither a further epoch nor the export needs it.
    """

    record: dict[str, Any]
    state: bytes | None


@dataclass(frozen=True)
class UnderWay:
    """A checkpoint within an epoch.

    Parameters
    ----------
    epoch : int
        Number of the epoch, from 1.
    window : int
        The window that comes next.
    rounds : int
        Rounds of the epoch, on which the order of its events depends.
    seconds : float
        Seconds that it has taken so far.
    state : bytes
        Network and optimiser.
    parts : tuple of bytes
        What each rank goes on from.
    """

    epoch: int
    window: int
    rounds: int
    seconds: float
    state: bytes
    parts: tuple[bytes, ...]

    @classmethod
    def of(cls, results: Sequence[EpochResult], seconds: float) -> Self:
        """Of what the ranks have returned, after so many seconds of the epoch."""
        lead = results[0]
        assert lead.state is not None  # rank 0 gives one
        parts = tuple(result.part for result in results if result.part is not None)
        return cls(lead.epoch, lead.window, lead.rounds, seconds, lead.state, parts)

    def by_rank(self, num_ranks: int) -> list[tuple[bytes, tuple[bytes, ...]]]:
        """What each of some ranks goes on from; all parts, if they are not as many as before."""
        if num_ranks != len(self.parts):
            return [(self.state, self.parts)] * num_ranks
        return [(self.state, (part,)) for part in self.parts]


@dataclass(frozen=True)
class Outcome:
    """The epoch of which the network is kept, with the metrics of its test events.

    Parameters
    ----------
    epoch : int
        Its number, from 1.
    state : bytes
        Its checkpoint.
    record : dict
        Its metrics of all splits, as JSON values.
    detail : dict
        Curves and tables of the test split, as JSON values.
    """

    epoch: int
    state: bytes
    record: dict[str, Any]
    detail: dict[str, Any]

    @property
    def test(self) -> dict[str, Any]:
        """Metrics, curves and tables of the test split, as JSON values."""
        return {**self.record["test"], **self.detail}


def course_of(config: Config, objective: Objective, num_chunks: int) -> Course:
    """What a training goes by, as the configuration says; of chunks, each is an epoch."""
    training = config.training
    return Course(
        num_chunks if training.strategy == "chunked" else training.epochs,
        training.keep == "best",
        training.monitor,
        training.monitor in objective.more_is_better,
        training.early_stopping,
    )
