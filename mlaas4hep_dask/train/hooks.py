"""Hooks: objects of a user's that are told how a training goes, and may look into it.

A hook is any object with one or more of these methods, each of which is given a `Context`:

- ``on_train_begin`` before the first epoch; again where training goes on from a checkpoint;
- ``on_epoch_begin`` before the first step of an epoch; again where one goes on after some steps;
- ``on_step`` after every step of the optimiser;
- ``on_epoch_end`` when the validation events of an epoch are measured;
- ``on_train_end`` after the last epoch, always after ``on_train_begin`` in the same process: both
  are called once more where the test events have to be measured anew.

Every rank has its own hooks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from mlaas4hep_dask.errors import did_you_mean
from mlaas4hep_dask.train.method import Piece
from mlaas4hep_dask.usercode import RAISED

MOMENTS = ("on_train_begin", "on_epoch_begin", "on_step", "on_epoch_end", "on_train_end")


@dataclass
class Context:
    """What a hook is told.

    Attributes
    ----------
    network : torch.nn.Module
        The user's network, which learns.
    optimiser : torch.optim.Optimizer
        What takes its steps.
    rank, num_ranks : int
        This rank, from 0, and how many there are.
    epoch : int
        Number of the epoch, from 1.
    step : int
        Steps that were taken in this epoch.
    loss : float
        That of the last step: the mean over ranks is the mean loss of the events of the step.
    metrics : mapping of str to mapping
        In ``on_epoch_end`` those of ``train`` and ``validation`` over all ranks, as in
        metrics.json; of the epoch before in other methods, after a resume too, and empty in the
        first epoch.
    """

    network: torch.nn.Module
    optimiser: Any
    rank: int = 0
    num_ranks: int = 1
    epoch: int = 0
    step: int = 0
    loss: float = float("nan")
    metrics: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    _stops: bool = False

    def stop(self) -> None:
        """Let training end after this epoch, at all ranks; its network counts as any other."""
        self._stops = True

    @property
    def stops(self) -> bool:
        """Whether a hook of this rank has asked to stop."""
        return self._stops


class Hooks:
    """The hooks of one rank.

    Parameters
    ----------
    pieces : sequence of Piece
        Callables that make them.
    context : Context
        What they are told.

    Raises
    ------
    ModelError
        When one cannot be made, or has no method of a hook.
    """

    def __init__(self, pieces: Sequence[Piece], context: Context) -> None:
        self.context = context
        made = [(piece, _made(piece)) for piece in pieces]
        self._calls: dict[str, list[tuple[Piece, Callable[[Context], object]]]] = {
            moment: [(piece, getattr(hook, moment)) for piece, hook in made if _has(hook, moment)]
            for moment in MOMENTS
        }
        self._has_begun = self._has_ended = False
        self._epoch_before = 0

    def take_up(self, epoch: int, metrics: Mapping[str, Mapping[str, Any]]) -> None:
        """Go on from a checkpoint of another process, written in or after an epoch."""
        if not self._has_begun:
            self._epoch_before, self.context.metrics = epoch, metrics

    def begin_epoch(self, epoch: int, step: int = 0) -> None:
        """Tell that an epoch begins; before the first of this process, that training does.

        It may go on after some steps of another process.
        """
        self.context.epoch, self.context.step = epoch, step
        self._begin_training()
        self._call("on_epoch_begin")

    def end_step(self, loss: float) -> None:
        """Tell that a step was taken."""
        self.context.step += 1
        self.context.loss = loss
        self._call("on_step")

    def end_epoch(self, metrics: Mapping[str, Mapping[str, Any]]) -> None:
        """Tell that an epoch is over, and what was measured."""
        self.context.metrics = metrics
        self._call("on_epoch_end")

    def end_training(self) -> None:
        """Tell that training is over, once."""
        if self._has_ended:
            return
        self._has_ended = True
        self.context.epoch = self.context.epoch or self._epoch_before
        self._begin_training()
        self._call("on_train_end")

    def _begin_training(self) -> None:
        if not self._has_begun:
            self._has_begun = True
            self._call("on_train_begin")

    def _call(self, moment: str) -> None:
        for piece, method in self._calls[moment]:
            try:
                method(self.context)
            except RAISED as error:  # whatever the user's code raises
                raise piece.error(f"failed in {moment}", error) from error


def _made(piece: Piece) -> Any:
    hook = piece.make()
    names = {name for name in dir(hook) if name.startswith("on_")}
    unknown = [name for name in sorted(names.difference(MOMENTS)) if _has(hook, name)]
    if unknown:
        near = did_you_mean(unknown[0], MOMENTS)
        raise piece.error(f"has a method {unknown[0]}, which nobody calls{near}")
    if not any(_has(hook, moment) for moment in MOMENTS):
        raise piece.error(f"gave {type(hook).__name__}, which has none of {', '.join(MOMENTS)}")
    return hook


def _has(hook: Any, moment: str) -> bool:
    return callable(getattr(hook, moment, None))
