"""Losses by name: each is one class here, which the keys of dataset.yaml then know."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    import torch

LOSSES: dict[str, dict[str, Loss]] = {}  # by kind of objective: its losses by name


class Loss(ABC):
    """What is made small in training; a subclass is known by its name once it is defined.

    ``name`` is what dataset.yaml calls it, ``kinds`` are the kinds of objectives that it is for,
    and ``meaning`` says in a few words what it is.
    """

    name: ClassVar[str]
    kinds: ClassVar[tuple[str, ...]]
    meaning: ClassVar[str]

    def __init_subclass__(cls) -> None:
        """Make it known under its name."""
        for kind in cls.kinds:
            LOSSES.setdefault(kind, {})[cls.name] = cls()

    @abstractmethod
    def per_event(self, outputs: torch.Tensor, targets: Any) -> torch.Tensor:
        """The loss of every event, float32 (events,).

        Parameters
        ----------
        outputs : Tensor of float32, shape (events,) or (events, outputs)
            What the network gives.
        targets : Tensor, or a pair of them
            What it should give, as `Objective.targets_of` makes it of labels and targets.
        """

    def total(self, outputs: torch.Tensor, targets: Any, weights: torch.Tensor) -> torch.Tensor:
        """The sum over events of weight times loss, a scalar."""
        return self.per_event(outputs, targets) @ weights


class BinaryCrossEntropy(Loss):
    """Of one logit for label 1 of two."""

    name = "cross_entropy"
    kinds = ("binary",)
    meaning = "minus the logarithm of the probability of the label"

    def per_event(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """As `Loss.per_event`."""
        from torch.nn.functional import binary_cross_entropy_with_logits

        return binary_cross_entropy_with_logits(outputs, targets, reduction="none")

    def total(
        self, outputs: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor
    ) -> torch.Tensor:
        """As `Loss.total`, in one pass."""
        from torch.nn.functional import binary_cross_entropy_with_logits

        return binary_cross_entropy_with_logits(outputs, targets, weight=weights, reduction="sum")


class CrossEntropy(Loss):
    """Of a logit for each class, by their softmax."""

    name = "cross_entropy"
    kinds = ("classes",)
    meaning = "minus the logarithm of the probability of the class"

    def per_event(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """As `Loss.per_event`."""
        from torch.nn.functional import cross_entropy

        return cross_entropy(outputs, targets, reduction="none")


class MeanSquare(Loss):
    """Mean over the targets of the squared difference."""

    name = "mse"
    kinds = ("regression",)
    meaning = "squared"

    def per_event(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """As `Loss.per_event`."""
        from torch.nn.functional import mse_loss

        return mse_loss(outputs, targets, reduction="none").mean(dim=1)


class Huber(Loss):
    """Mean over the targets of Huber's loss (Huber 1964) with a threshold of 1."""

    name = "huber"
    kinds = ("regression",)
    meaning = "squared up to 1 and linear beyond"

    def per_event(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """As `Loss.per_event`."""
        from torch.nn.functional import huber_loss

        return huber_loss(outputs, targets, reduction="none").mean(dim=1)


class ReconstructionError(Loss):
    """Mean over the values of an event that are present of the squared difference."""

    name = "mse"
    kinds = ("reconstruction",)
    meaning = "squared, over the values of an event that are present"

    def per_event(
        self, outputs: torch.Tensor, targets: tuple[torch.Tensor, torch.Tensor]
    ) -> torch.Tensor:
        """As `Loss.per_event`; the targets are the rows and their missing mask."""
        from mlaas4hep_dask.objective.arithmetic.reconstruction import reconstruction_error

        return reconstruction_error(outputs, *targets)
