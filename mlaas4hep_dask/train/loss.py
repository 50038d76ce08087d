"""Finds and ships the loss of a training: one of ours by its name, or a user's function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlaas4hep_dask.errors import CodeError, ModelError
from mlaas4hep_dask.objective import LOSSES, Loss, Objective
from mlaas4hep_dask.objective.objective import BatchLoss
from mlaas4hep_dask.train.code import code_named
from mlaas4hep_dask.usercode import RAISED, UserCode

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class LossSource:
    """A loss in a form that reaches workers without the user's folder.

    Parameters
    ----------
    name : str
        One of ours, or the user's reference; by default the usual one of the objective.
    code : UserCode, optional
        The user's function with all that it consists of.
    """

    name: str = ""
    code: UserCode | None = None

    def batch_loss(self, objective: Objective) -> BatchLoss:
        """The loss of a batch, as that of `Objective.batch_loss`.

        Raises
        ------
        ModelError
            When the user's module cannot be imported or has no such function.
        """
        if self.code is not None:
            return objective.batch_loss(UserLoss(self.code, objective))
        return objective.batch_loss(LOSSES[objective.kind][self.name] if self.name else None)


class UserLoss(Loss):
    """The loss that a user's function of (outputs, targets) gives for every event.

    Parameters
    ----------
    code : UserCode
        The function.
    objective : Objective
        What is learned.

    Raises
    ------
    ModelError
        When its module cannot be imported or does not have it.
    """

    name = ""
    kinds = ()
    meaning = "a function of a user's own"

    def __init__(self, code: UserCode, objective: Objective) -> None:
        self._code, self._objective = code, objective
        try:
            self._function = code.load()
        except CodeError as error:
            raise ModelError(f"loss {error.message}", **error.facts) from error

    def per_event(self, outputs: torch.Tensor, targets: Any) -> torch.Tensor:
        """As `Loss.per_event`.

        Raises
        ------
        ModelError
            When the function fails, or does not give one number per event that depends on the
            outputs.
        """
        import torch

        size = len(outputs)
        try:
            losses = self._function(*self._objective.comparable(outputs, targets))
        except RAISED as error:  # whatever the user's code raises
            raise self._error(f"failed on {size} events", error) from error
        if not isinstance(losses, torch.Tensor):
            raise self._error(
                f"returned {type(losses).__name__}, expected a tensor of one loss per event"
            )
        if tuple(losses.shape) != (size,):
            raise self._error(
                f"returned {tuple(losses.shape)} for {size} events, expected ({size},): one loss "
                "per event, neither a sum nor a mean over them (reduction='none')"
            )
        if outputs.requires_grad and not losses.requires_grad:
            raise self._error(
                "gives losses without a gradient: they have to come from the outputs by functions "
                "of torch, without detach(), item() or numpy()"
            )
        return losses.float()

    def _error(self, what: str, cause: BaseException | None = None) -> ModelError:
        code = self._code
        return ModelError(f"loss {code.message(what, cause)}", callable=code.reference)


def find_loss(name: str, *, resolve: Callable[[str], Path], where: str) -> LossSource:
    """The source of a loss, checked as far as possible without running it.

    Parameters
    ----------
    name : str
        One of ours, ``module:callable`` or ``path/to/file.py:callable``.
    resolve : callable
        Makes a relative path absolute.
    where : str
        Place in dataset.yaml, for errors.

    Raises
    ------
    ModelError
        When there is no such file, module or callable; names the nearest.
    """
    if ":" not in name:
        return LossSource(name)
    return LossSource(name, code_named("training.loss", name, resolve=resolve, where=where))
