"""What every kind of objective answers, for rooms that need not know which kind it is."""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol, Self

from mlaas4hep_dask.errors import EncodeError
from mlaas4hep_dask.journal.text import NONE
from mlaas4hep_dask.objective.losses import LOSSES, Loss

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

BatchLoss = Callable[["torch.Tensor", Any, "torch.Tensor"], "torch.Tensor"]
Fault = tuple[str, str]  # a key of dataset.yaml, and what is wrong with its value


class Tally(Protocol):
    """Mergeable sums over the events of a split, from which its metrics follow.

    They are one flat array of float64, so that ranks add theirs up in one exchange. Weights are
    those of the events, without what balances the classes in the loss.
    """

    sums: NDArray[np.float64]

    def add(self, output: NDArray[np.float32], y: Any, w: NDArray[Any]) -> None:
        """Add events: what the network gave, labels, targets or `Rows`, and weights."""

    def values(self) -> dict[str, Any]:
        """Metrics, as JSON values; None where a metric is not defined."""

    def detail(self) -> dict[str, Any]:
        """Curves and tables, as JSON values."""


class Spread(NamedTuple):
    """The values of one target over all selected events."""

    mean: float
    std: float
    min: float | None
    max: float | None


class Selected(NamedTuple):
    """What the specs pass tells of the selected events.

    Parameters
    ----------
    columns : tuple of str
        Names of the columns of a row.
    branch : tuple of str
        The key ``target.branch``.
    targets : mapping of str to Spread
        By name: the targets that are numbers.
    class_events : mapping of str to int
        By class: its events; empty where every sample has a label.
    """

    columns: tuple[str, ...] = ()
    branch: tuple[str, ...] = ()
    targets: Mapping[str, Spread] = {}
    class_events: Mapping[str, int] = {}


@dataclass(frozen=True)
class Objective(ABC):
    """What a network learns to give.

    Parameters
    ----------
    names : tuple of str
        Classes by label, targets, or columns.
    """

    names: tuple[str, ...]

    # In dataset.yaml
    word: ClassVar[str]  # target.kind
    meaning: ClassVar[str]  # what is predicted, for who reads the key's description
    usual_network: ClassVar[str | None] = None  # callable of the usual network, if it has its own
    has_classes: ClassVar[bool] = False

    # In manifest.json
    kind: ClassVar[str]
    score: ClassVar[str]
    score_meaning: ClassVar[str]
    names_key: ClassVar[str]  # what its names are

    # Of a network
    gives_rows: ClassVar[bool] = False  # like its input, which it learns
    expected: ClassVar[str]  # of its outputs, for who ends it in a layer with bounds
    rounding: ClassVar[float] = 0.0  # share of a score far from 0 that float32 may change
    usual_loss: ClassVar[str]
    more_is_better: ClassVar[tuple[str, ...]]  # metrics of a split of which that is true

    # In reports
    headline: ClassVar[tuple[str, str]]  # key of a metric of a split, and what people call it
    title: ClassVar[str]
    link: ClassVar[str]
    residual_axis: ClassVar[str] = "predicted - true {}"
    limits: ClassVar[str]

    # ---- of the configuration

    @classmethod
    @abstractmethod
    def target_faults(cls, branch: Sequence[str], classes: Sequence[str]) -> list[Fault]:
        """What is wrong with the keys ``branch`` and ``classes`` of the section target."""

    @classmethod
    @abstractmethod
    def label_faults(
        cls, labels: Sequence[int | None], branch: Sequence[str], classes: Sequence[str]
    ) -> list[Fault]:
        """What is wrong with the labels of the samples, by keys from the top level."""

    @classmethod
    @abstractmethod
    def names_of(
        cls, labels: Mapping[str, int | None], branch: Sequence[str], classes: Sequence[str]
    ) -> tuple[str, ...]:
        """The names, of labels by sample and the keys of the section target."""

    @classmethod
    def takes(cls, num_names: int) -> bool:
        """True when so many names make an objective of this kind."""
        return num_names > 0

    # ---- of events

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes by label; empty when no classes are learned."""
        return self.names if self.has_classes else ()

    @property
    def y_tail(self) -> tuple[int, ...]:
        """Shape of what is kept of one event to learn: () of a label, (targets,) of numbers."""
        return ()

    def fit_for(self, values: NDArray[np.float64]) -> tuple[NDArray[np.bool_], str]:
        """Which values of a branch can be learned, and what is expected of them, in words."""
        del values
        raise AssertionError(f"{self.kind} reads no branch")

    def y_of_sample(self, label: int | None, number: int) -> int:
        """What is kept of every event of a sample where no branch tells it.

        Parameters
        ----------
        label : int or None
            The label of the sample, if it has one.
        number : int
            Its place among the samples.
        """
        del label, number
        return 0

    def fitted(self, selected: Selected) -> Self:
        """The same, once the selected events are measured.

        Raises
        ------
        DataError
            When there is nothing to learn.
        """
        del selected
        return self

    def unfitted(self, columns: tuple[str, ...]) -> Self:
        """The same for rows of these columns, where too few events are known to measure them."""
        return self.fitted(Selected(columns))

    # ---- of a network

    @property
    def num_outputs(self) -> int:
        """Numbers that a network gives for an event."""
        return len(self.names)

    @property
    def output_tail(self) -> tuple[int, ...]:
        """Shape of what a network gives for an event, in training."""
        return (self.num_outputs,)

    @property
    def num_scores(self) -> int:
        """Numbers of a score."""
        return self.num_outputs

    @property
    def units(self) -> tuple[float, ...]:
        """What 1 of every output is in units of the scores, or one number for all."""
        return (1.0,)

    def targets_of(self) -> Callable[[Any], Any]:
        """A function that makes of labels or targets, as tensors, what outputs are compared with.

        That of rows is given the pair of rows and missing mask.
        """
        return lambda y: y

    def comparable(self, outputs: torch.Tensor, targets: Any) -> tuple[Any, Any]:
        """Outputs and targets as two tensors of one shape, for the loss of a user's own."""
        return outputs, targets

    def batch_loss(self, loss: Loss | None = None) -> BatchLoss:
        """The loss of a batch as a function of (outputs, y, w): the sum of weight times loss.

        Parameters
        ----------
        loss : Loss, optional
            By default the usual one of this kind.
        """
        loss_or_usual = loss or LOSSES[self.kind][self.usual_loss]
        targets_of = self.targets_of()
        return lambda outputs, y, w: loss_or_usual.total(outputs, targets_of(y), w)

    @abstractmethod
    def tally(self, samples: Sequence[str] = ()) -> Tally:
        """An empty tally.

        Parameters
        ----------
        samples : sequence of str
            Names of all samples in their order.
        """

    @abstractmethod
    def activation(self) -> torch.nn.Module:
        """The module that turns a network's outputs into scores, in and out of TorchScript."""

    def wrong_scores(self, low: float, high: float) -> str | None:
        """What is wrong with scores from ``low`` to ``high``; None if nothing is."""
        del low, high
        return None

    # ---- of scores

    @property
    def scored(self) -> tuple[str, ...]:
        """What each number of a score is of; empty where a score is one number of an event."""
        return ()

    @property
    def score_names(self) -> tuple[str, ...]:
        """A name for each number of a score, for branches."""
        return ("score",)

    def as_json(self) -> dict[str, Any]:
        """The section ``output`` of a manifest."""
        return {
            "kind": self.kind,
            "name": self.score,
            "meaning": self.score_meaning,
            "dtype": "float32",
            self.names_key: list(self.names),
        }

    @classmethod
    def from_json(cls, output: Mapping[str, Any]) -> Self:
        """The objective that the section ``output`` of a manifest describes.

        Raises
        ------
        EncodeError
            When it does not describe one of this kind.
        """
        names = output.get(cls.names_key)
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise EncodeError(f"output.{cls.names_key} is not a list of names")
        if not cls.takes(len(names)):
            raise EncodeError(f"output.kind is {cls.kind!r} with {len(names)} {cls.names_key}")
        return cls(tuple(names))

    # ---- of reports

    @abstractmethod
    def metric_rows(self, test: Mapping[str, Any]) -> list[tuple[str, str]]:
        """Name and value of the metrics of the test events, beside their loss."""

    @abstractmethod
    def purpose(self, branch: Sequence[str], loss: str) -> str:
        """A sentence for the model card.

        Parameters
        ----------
        branch : sequence of str
            The key ``target.branch``.
        loss : str
            Name of the loss.
        """


def plain(name: str) -> str:
    """A name as part of a branch's name."""
    return re.sub(r"\W", "_", str(name))


def short(value: float | None) -> str:
    """Four significant digits, or ``none``."""
    return f"{value:.4g}" if value is not None and math.isfinite(value) else NONE
