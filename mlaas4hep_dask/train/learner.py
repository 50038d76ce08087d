"""What learns at one rank: the network with its optimiser, and the steps that it takes."""

from __future__ import annotations

import math
import pickle
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.parallel import DistributedDataParallel

from mlaas4hep_dask.errors import ModelError, TrainingError, shown
from mlaas4hep_dask.export.call import takes_missing
from mlaas4hep_dask.objective.arithmetic.reconstruction import Rows
from mlaas4hep_dask.train.arithmetic import Arithmetic
from mlaas4hep_dask.train.chunks import chunk_of
from mlaas4hep_dask.train.densify import host
from mlaas4hep_dask.train.feed import Window
from mlaas4hep_dask.train.grouping import groups, num_steps
from mlaas4hep_dask.train.hooks import Context, Hooks
from mlaas4hep_dask.train.session import RankTask
from mlaas4hep_dask.train.standing import Pulse
from mlaas4hep_dask.train.stepping import Stepper
from mlaas4hep_dask.usercode import RAISED

EVALUATION_ROWS = 4096  # rows per forward pass when nothing is learned
LOOK_EVERY = 64  # batches; whoever looks at a loss on a GPU waits for it
# A RuntimeError may come from a lost rank: whether it is the network's, the traceback tells.
USER_ERRORS = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, SystemExit)


class Learner:
    """A network, its loss and what takes its steps.

    Parameters
    ----------
    task : RankTask
        What is learned, and how.

    Attributes
    ----------
    device : torch.device
        On which all of it is.
    network : torch.nn.Module
        The user's.
    wrapped : torch.nn.Module
        The same, or what averages its gradients over ranks.
    needs_missing : bool
        Whether windows need the missing mask.
    hooks : Hooks
        The user's, which are told of every step.
    pulse : Pulse
        How it gets on.
    """

    def __init__(self, task: RankTask) -> None:
        self.task, self.pulse = task, Pulse()
        self.device = torch.device(task.device)
        torch.manual_seed(task.seed)  # equal initial weights on all ranks
        objective = task.objective
        self.network = task.model.build(task.given)
        if task.method.warm_start is not None:
            task.method.warm_start.fill(self.network)
        task.model.move(self.network, self.device)
        self.wrapped: torch.nn.Module = self.network
        train = chunk_of(task.assignments.train, 0, task.num_chunks)  # others have about as many
        self._arithmetic = Arithmetic(task.method.precision, self.device.type)
        self.stepper = Stepper(
            self.network,
            task.method,
            learning_rate=task.learning_rate,
            steps=task.passes * num_steps(train, task.method.accumulate),
            epochs=task.epochs,
            is_more_better=task.is_more_better,
            scaler=self._arithmetic.scaler,
        )
        context = Context(self.network, self.stepper.optimiser, task.rank, task.num_ranks)
        self.hooks = Hooks(task.method.hooks, context)
        with self.device:  # what it consists of is there too
            self.loss = task.method.loss.batch_loss(objective)
        self.output_tail = objective.output_tail
        self._balance = np.array(task.balance, np.float32)  # (classes,), empty when all are 1
        self._takes_missing = takes_missing(self.network)
        is_told = self.device.type == "cpu" or bool(task.method.hooks)
        self._look_every = 1 if is_told else LOOK_EVERY
        self._learns_rows = objective.gives_rows
        self.needs_missing = self._takes_missing or self._learns_rows

    def parameters(self) -> list[torch.nn.Parameter]:
        """Those that are learned."""
        return [p for p in self.network.parameters() if p.requires_grad]

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {**self.stepper.state(), "metrics": dict(self.hooks.context.metrics)}

    def take_up(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint.

        Raises
        ------
        TrainingError
            When it is not one of this network.
        """
        try:
            self.stepper.take_up(state)
            self.hooks.take_up(state.get("epoch", 0), state.get("metrics", {}))
        except (KeyError, TypeError, ValueError, RuntimeError, pickle.UnpicklingError) as error:
            raise unusable(error, self.task.rank) from error

    def truth(self, window: Window) -> Any:
        """What the outputs of a window should be: labels, targets, or the rows themselves."""
        if not self._learns_rows:
            return window.y
        assert window.missing is not None  # the feed makes it
        return Rows(host(window.x), host(window.missing), window.y)

    def loss_weights(self, window: Window) -> NDArray[np.float32]:
        """The weights in the loss: those of the events, times what balances the classes."""
        if self._balance.size == 0:
            return window.w
        return window.w * self._balance[window.y.astype(np.int64)]

    def learn(self, window: Window, weights: NDArray[np.float32]) -> Iterator[tuple[float, int]]:
        """Take every step of a window; gives losses, and how far it has come.

        The losses are those of every batch on a CPU, or where there are hooks; else sums of some.
        """
        batch = self._cutter(window, weights)
        bounds = window.bounds.tolist()
        unseen, last = None, len(bounds) - 2
        steps = groups(len(bounds) - 1, self.task.method.accumulate)
        sizes = [int(window.step_sizes[group.start : group.stop].sum()) for group in steps]
        # The gradients of all ranks are averaged. This factor makes the average the gradient of the
        # mean loss over all batches of the group, however they are divided.
        scales = [self.task.num_ranks / (size * self.task.mean_weight) for size in sizes]
        factors = torch.tensor(scales, device=self.device).unbind()
        for group, scale, factor in zip(steps, scales, factors, strict=True):
            self.stepper.zero_grad()
            total = 0.0
            for step in group:
                begin, end = bounds[step], bounds[step + 1]
                self.pulse.beat(end - begin)
                alone = nullcontext() if step == group[-1] else self._alone()
                with alone:
                    loss = self._add_gradient(batch, begin, end, factor)
                unseen = loss if unseen is None else unseen.double() + loss
                value = None
                if (step + 1) % self._look_every == 0 or step == last:
                    value, unseen = self._seen(unseen), None
                    total += value
                if step == group[-1]:
                    self.stepper.step()
                    self.hooks.end_step(total * scale)
                if value is not None:
                    yield value, end
        self.pulse.beat()

    def _seen(self, loss: torch.Tensor) -> float:
        """A loss, or a sum of some, once it is there."""
        value = float(loss)
        require_finite(value, self.task.rank)
        return value

    def _alone(self) -> AbstractContextManager[None]:
        """In which gradients are added up at this rank, and not averaged over all."""
        if isinstance(self.wrapped, DistributedDataParallel):
            return self.wrapped.no_sync()
        return nullcontext()

    def _add_gradient(
        self, batch: Callable[[slice], Any], begin: int, end: int, factor: torch.Tensor
    ) -> torch.Tensor:
        """Add to the gradients ``factor`` times that of the loss of some rows, which it returns."""
        wrapped: Any = self.wrapped
        inputs, truth, w = batch(slice(begin, end))
        try:
            with self._arithmetic.cast():
                outputs = wrapped(*inputs).reshape(end - begin, *self.output_tail)
            loss: Any = self.loss(self._arithmetic.restored(outputs), truth, w)
            loss.backward(self.stepper.scaled(factor))
        except ModelError:  # the user's loss tells where it failed
            raise
        except RAISED as error:  # whatever the user's code raises
            self._blame(error, end - begin)
            raise
        return loss.detach()  # type: ignore[no-any-return]

    def outputs(
        self, window: Window, weights: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], float]:
        """What the network gives for a window, and the sum of its losses; nothing is learned."""
        batch, network = self._cutter(window, weights), self.stepper.measured
        output, total = np.empty((len(window.y), *self.output_tail), np.float32), 0.0
        with torch.inference_mode():
            for begin in range(0, len(output), EVALUATION_ROWS):
                part = slice(begin, begin + EVALUATION_ROWS)
                inputs, truth, w = batch(part)
                self.pulse.beat(len(w))
                try:
                    outputs = network(*inputs).reshape(-1, *self.output_tail)
                except RAISED as error:  # whatever the user's code raises
                    self._blame(error, len(w))
                    raise
                output[part] = outputs.cpu().numpy()
                total += float(self.loss(outputs, truth, w))
        self.pulse.beat()
        return output, total

    def _cutter(self, window: Window, weights: NDArray[np.float32]) -> Callable[[slice], Any]:
        """Gives of some rows the network's inputs, what the loss compares with, and weights."""
        arrays = (window.x, window.y, weights, window.missing)
        x, y, w, *mask = (torch.as_tensor(a).to(self.device) for a in arrays if a is not None)
        rows = (x, *mask)
        num_inputs = 2 if self._takes_missing else 1

        def cut(part: slice) -> tuple[Any, Any, torch.Tensor]:
            tensors = tuple(tensor[part] for tensor in rows)
            return tensors[:num_inputs], tensors if self._learns_rows else y[part], w[part]

        return cut

    def _blame(self, error: BaseException, num_events: int) -> None:
        """Raise a ModelError for what comes from the network, and not from a lost rank."""
        frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
        own = (self.network, self.stepper.measured)
        is_own = any(frame.f_locals.get("self") in own for frame in frames)
        if is_own or self.task.num_ranks == 1 or isinstance(error, USER_ERRORS):
            raise self.task.model.error(
                f"failed on a batch of {num_events} events of rank {self.task.rank}", error
            ) from error


def require_finite(loss: float, rank: int) -> None:
    """Raise a TrainingError when a loss is no number any more."""
    if not math.isfinite(loss):
        raise TrainingError(
            "the loss is not finite: the learning rate, a weight or an encoded value (see "
            "encode.normalisation) may be too large, or the network divides by zero",
            rank=rank,
        )


def unusable(error: Exception, rank: int) -> TrainingError:
    """The error for a checkpoint that is not of this network."""
    return TrainingError(
        "the checkpoint is not one of this network and this version of mlaas4hep_dask "
        f"({type(error).__name__}: {shown(str(error))}); run it anew, in another folder "
        "(--output)",
        rank=rank,
    )
