"""What a training leaves behind: a checkpoint of every epoch, and which one is kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mlaas4hep_dask.config import Config
from mlaas4hep_dask.objective import Objective
from mlaas4hep_dask.train.course import Course


@dataclass(frozen=True)
class Checkpoint:
    """Metrics of one epoch over all ranks, as JSON values, and its checkpoint.

    The state is None where neither a further epoch nor the export needs it.
    """

    record: dict[str, Any]
    state: bytes | None


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
