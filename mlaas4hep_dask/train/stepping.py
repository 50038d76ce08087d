"""What takes the steps of a network: an optimiser, its schedule, and what is done beside them."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from mlaas4hep_dask.errors import ModelError
from mlaas4hep_dask.train.method import Method, Piece
from mlaas4hep_dask.train.requirements import learned
from mlaas4hep_dask.usercode import RAISED

UNKNOWN_STATE = (
    "has a state_dict that checkpoints cannot hold: tensors, numbers, texts, lists, tuples and "
    "dictionaries of these alone are read again"
)


class Stepper:
    """Takes the steps of a network whose gradients are known.

    Parameters
    ----------
    network : torch.nn.Module
        The network, of which the parameters to freeze are frozen.
    method : Method
        How it learns.
    learning_rate : float
        Step size, where the method does not name another.
    steps : int
        Steps of an epoch.
    epochs : int
        Epochs of the training, if none ends it early.
    is_more_better : bool
        Whether the metric by which epochs are compared is to be large.
    scaler : torch.amp.GradScaler, optional
        What scales losses so that gradients do not vanish; see `Arithmetic`.

    Attributes
    ----------
    optimiser : torch.optim.Optimizer
        The optimiser.
    measured : torch.nn.Module
        The network that is measured and exported.
    """

    def __init__(
        self,
        network: torch.nn.Module,
        method: Method,
        *,
        learning_rate: float,
        steps: int = 1,
        epochs: int = 1,
        is_more_better: bool = False,
        scaler: Any = None,
    ) -> None:
        self._network, self._method, self._scaler = network, method, scaler
        self._learned = learned(network, method.freeze)
        if method.optimiser is None:
            self.optimiser: Any = torch.optim.AdamW(self._learned, lr=learning_rate, fused=True)
        else:
            self.optimiser = method.optimiser.make(self._learned, lr=learning_rate)
            _require(method.optimiser, self.optimiser, torch.optim.Optimizer)
        self._scheduler: Any = None
        self._is_per_step, self._calls, self._called = False, 0, 0
        if method.scheduler is not None:
            by_number = "total_steps" in method.scheduler.parameters()
            self._is_per_step = (method.every or ("step" if by_number else "epoch")) == "step"
            mode = "max" if is_more_better else "min"
            self._schedule = partial(
                self._new_schedule, method.scheduler, max_lr=learning_rate, mode=mode
            )
            self._schedule(steps * epochs if self._is_per_step else epochs)
        self._mean = None if method.ema is None else averaged(network, method.ema)
        self.measured = network if self._mean is None else self._mean.module

    def _new_schedule(self, piece: Piece, calls: int, **facts: Any) -> None:
        """Make the schedule, which will be called so often."""
        self._calls = calls
        self._scheduler = piece.make(self.optimiser, total_steps=calls, T_max=calls, **facts)
        kinds = (torch.optim.lr_scheduler.LRScheduler, torch.optim.lr_scheduler.ReduceLROnPlateau)
        _require(piece, self._scheduler, kinds)

    @property
    def learning_rate(self) -> float:
        """Step size of the next step."""
        return float(self.optimiser.param_groups[0]["lr"])

    def zero_grad(self) -> None:
        """Forget the gradients of the step before."""
        self.optimiser.zero_grad()

    def scaled(self, factor: torch.Tensor) -> torch.Tensor:
        """A factor of the loss, times what keeps gradients from vanishing."""
        return factor if self._scaler is None else self._scaler.scale(factor)

    def step(self) -> None:
        """Take a step, after which the schedule may change the size of the next.

        In float16, one whose gradients are not finite is left out, and the next losses are scaled
        by less.
        """
        if self._scaler is not None:
            self._scaler.unscale_(self.optimiser)
        if self._method.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self._learned, self._method.clip_norm)
        if not self._take_step():
            return
        if self._mean is not None:
            self._mean.update_parameters(self._network)
        if self._is_per_step:
            self._go_along()

    def _take_step(self) -> bool:
        """Whether the optimiser has taken a step."""
        if self._scaler is None:
            self._call(self._method.optimiser, self.optimiser.step)
            return True
        scale = self._scaler.get_scale()
        self._call(self._method.optimiser, self._scaler.step, self.optimiser)
        self._scaler.update()
        return bool(self._scaler.get_scale() >= scale)

    def end_epoch(self, metric: float | None) -> None:
        """Tell the schedule that an epoch is over, and its metric of the validation events."""
        if self._scheduler is None or self._is_per_step:
            return
        by_metric = isinstance(self._scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau)
        if not by_metric:
            self._go_along()
        elif metric is not None:
            self._go_along(metric)

    def _go_along(self, *metric: float) -> None:
        """Let the schedule go on, unless it is at its end."""
        # Some chunks have a step more than the first; a schedule that counts would refuse it.
        if self._called < self._calls:
            self._called += 1
            self._call(self._method.scheduler, self._scheduler.step, *metric)

    def state(self) -> dict[str, Any]:
        """For a checkpoint; ``network`` is what is measured and exported."""
        state = {"network": self.measured.state_dict(), "optimiser": self.optimiser.state_dict()}
        if self._scheduler is not None:
            state["scheduler"] = self._scheduler.state_dict()
            state |= {"calls": self._calls, "called": self._called}
        if self._scaler is not None:
            state["scaler"] = self._scaler.state_dict()
        if self._mean is not None:
            state["learning"] = self._network.state_dict()
            state["num_averaged"] = self._mean.n_averaged
        return state

    def take_up(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint.

        Its schedule is as long as it was, also where an epoch has other steps by now: what is left
        of one that has come to its end keeps the last step size.
        """
        if self._scheduler is not None:
            # A user's function may know the length from the call that makes the schedule alone.
            if state.get("calls", self._calls) != self._calls:  # earlier versions did not tell
                self._schedule(state["calls"])
            self._called = state.get("called", state["scheduler"].get("last_epoch", 0))
        self.measured.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        if self._scheduler is not None:
            self._scheduler.load_state_dict(state["scheduler"])
        if self._scaler is not None:
            self._scaler.load_state_dict(state["scaler"])
        if self._mean is not None:
            self._network.load_state_dict(state["learning"])
            self._mean.n_averaged.copy_(state["num_averaged"])

    def require_state(self) -> None:
        """Raise a ModelError when a checkpoint could not be gone on from."""
        pieces = (self._method.optimiser, self._method.scheduler)
        for piece, part in zip(pieces, (self.optimiser, self._scheduler), strict=True):
            if piece is None:
                continue
            buffer = io.BytesIO()
            try:
                torch.save(part.state_dict(), buffer)
                buffer.seek(0)
                part.load_state_dict(torch.load(buffer, weights_only=True))
            except pickle.UnpicklingError as error:
                raise piece.error(UNKNOWN_STATE) from error
            except RAISED as error:  # whatever the user's code raises
                raise piece.error(
                    "has a state_dict that is not saved and taken up again", error
                ) from error

    def _call(self, piece: Piece | None, function: Any, *arguments: Any) -> None:
        if piece is None:
            function(*arguments)
            return
        try:
            function(*arguments)
        except RAISED as error:  # whatever the user's code raises
            raise piece.error("failed in a step", error) from error


def averaged(network: torch.nn.Module, decay: float) -> AveragedModel:
    """A copy of a network that goes on as the moving average of its parameters.

    Raises
    ------
    ModelError
        When the network cannot be copied.
    """
    try:
        return AveragedModel(network, multi_avg_fn=_mean_of(decay), use_buffers=True)
    except RAISED as error:  # whatever the user's network raises
        reason = str(error).strip().partition("\n")[0]
        raise ModelError(
            f"cannot be copied, as training.ema needs ({type(error).__name__}: {reason}); "
            "torch.nn.utils.parametrizations has weight_norm and others that can"
        ) from error


def _mean_of(decay: float) -> Callable[[Sequence[torch.Tensor], Sequence[torch.Tensor], Any], None]:
    """Moves tensors of one kind towards those of now; what counts or indexes is as it is now."""
    average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]

    def moved(
        means: Sequence[torch.Tensor], now: Sequence[torch.Tensor], num_averaged: Any
    ) -> None:
        if means[0].is_floating_point() or means[0].is_complex():
            average(means, now, num_averaged)
            return
        for mean, value in zip(means, now, strict=True):
            mean.copy_(value)

    return moved


def _require(piece: Piece, made: Any, kinds: Any) -> None:
    if not isinstance(made, kinds):
        first = kinds[0] if isinstance(kinds, tuple) else kinds
        raise piece.error(f"gave {type(made).__name__}, expected torch's {first.__name__}")
