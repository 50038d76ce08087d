"""One rank of a training: a torch process that goes through its events epoch by epoch.

A rank lives in a worker process from its first epoch to its last, so that the process group, the
network and the buffers are made once; each epoch is one call that returns a checkpoint.
"""

from __future__ import annotations

import io
import os
import pickle
import socket
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from typing import Any

import numpy as np
import psutil
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch.nn.parallel import DistributedDataParallel

from mlaas4hep_dask.errors import ModelError, TrainingError, shown
from mlaas4hep_dask.export.call import takes_missing
from mlaas4hep_dask.journal import SPLITS
from mlaas4hep_dask.objective import Tally
from mlaas4hep_dask.objective.arithmetic.reconstruction import Rows
from mlaas4hep_dask.train.exchange import SharedMemoryExchange, machine
from mlaas4hep_dask.train.feed import BlockSource, Feed, Window
from mlaas4hep_dask.train.meeting import Board, BoardStore
from mlaas4hep_dask.train.session import (
    EpochResult,
    RankFacts,
    RankTask,
    SplitMetrics,
)
from mlaas4hep_dask.usercode import RAISED

EVALUATION_ROWS = 4096  # rows per forward pass when nothing is learned
TIMEOUT = timedelta(minutes=10)
PROGRESS_EVERY = 0.5  # seconds
# A RuntimeError may come from a lost rank: whether it is the network's, the traceback tells.
USER_ERRORS = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, SystemExit)


class Rank:
    """A network, its optimiser and its place among the other ranks."""

    exchange: SharedMemoryExchange | None = None
    _has_joined = _is_abandoned = False

    def __init__(self, task: RankTask, state: bytes | None) -> None:
        self.task = task
        torch.set_num_threads(1)  # one rank per core; threads of several ranks would compete
        torch.manual_seed(task.seed)  # equal initial weights on all ranks
        objective = task.objective
        self.network = task.model.build(task.row_shape, objective.num_outputs)
        learning = [p for p in self.network.parameters() if p.requires_grad]
        self.optimiser = torch.optim.Adam(learning, lr=task.learning_rate, fused=True)
        if state is not None:
            self._take_up(state)
        self.loss = task.loss.batch_loss(objective)
        self._tail = objective.output_tail
        self._balance = np.array(task.balance, np.float32)  # (classes,), empty when all are 1
        self._takes_missing = takes_missing(self.network)
        self._learns_rows = objective.gives_rows
        self.learner: torch.nn.Module = self.network
        self._feeds: dict[str, Feed] = {}

    def _take_up(self, state: bytes) -> None:
        try:
            checkpoint = load_state(state)
            self.network.load_state_dict(checkpoint["network"])
            self.optimiser.load_state_dict(checkpoint["optimiser"])
        except (KeyError, TypeError, ValueError, RuntimeError, pickle.UnpicklingError) as error:
            raise TrainingError(
                "the checkpoint is not one of this network and this version of mlaas4hep_dask "
                f"({type(error).__name__}: {shown(str(error))}); run it anew, in another folder "
                "(--output)",
                rank=self.task.rank,
            ) from error

    def facts(self) -> RankFacts:
        """What has to be known of all ranks before they can meet."""
        parameters = [p for p in self.network.parameters() if p.requires_grad]
        is_shareable = all(p.dtype == torch.float32 for p in parameters)
        num_values = sum(p.numel() for p in parameters)
        return RankFacts(machine(), num_values if is_shareable else None)

    def join(self, board: Board, memory: str | None) -> None:
        """Meet the other ranks, once however often it is called; it takes all of them.

        Parameters
        ----------
        board : Board
            Where they leave their addresses for each other.
        memory : str or None
            Memory of rank 0 for the gradients, if all ranks can share it.
        """
        if self._has_joined or self.task.num_ranks == 1:
            return
        task = self.task
        if dist.is_initialized():  # a session that broke off while it was being opened
            dist.destroy_process_group()
        store = BoardStore(
            board, rank=task.rank, timeout=TIMEOUT, is_abandoned=lambda: self._is_abandoned
        )
        # By default gloo takes the address that this machine's name has, which may be a loopback
        # address that other machines cannot reach.
        if (interface := interface_of(task.host)) and "GLOO_SOCKET_IFNAME" not in os.environ:
            os.environ["GLOO_SOCKET_IFNAME"] = interface
        dist.init_process_group(
            "gloo", store=store, rank=task.rank, world_size=task.num_ranks, timeout=TIMEOUT
        )
        learner = DistributedDataParallel(self.network, gradient_as_bucket_view=True)
        self.exchange = self._share_memory(memory)  # all have met after this
        if self.exchange is not None:
            learner.register_comm_hook(None, self.exchange.hook)
        self.learner = learner
        self._has_joined = True
        if task.rank == 0:
            board.clear()

    def abandon(self) -> None:
        """Wait for other ranks no more."""
        self._is_abandoned = True
        if self.exchange is not None:
            self.exchange.abandoned = True

    def _share_memory(self, memory: str | None) -> SharedMemoryExchange | None:
        """The exchange through shared memory, if every rank can open it."""
        task, capacity = self.task, self.facts().num_values
        exchange = None
        if memory is not None and capacity is not None:
            with suppress(OSError):
                exchange = SharedMemoryExchange(
                    memory, rank=task.rank, num_ranks=task.num_ranks, capacity=capacity
                )
        num_open = torch.tensor(0 if exchange is None else 1)
        dist.all_reduce(num_open)
        return exchange if num_open == task.num_ranks else None

    def close(self) -> None:
        """Leave the process group."""
        if self.task.num_ranks > 1 and dist.is_initialized():
            dist.destroy_process_group()

    def run_epoch(
        self, source: BlockSource, progress: Callable[[int], None], epoch: int
    ) -> EpochResult:
        """Learn from every training event once, then measure the validation events.

        The test events are measured after the last epoch.
        """
        task = self.task
        train, validation, test = SPLITS
        measured = [validation, *([test] if epoch == task.epochs else [])]
        torch.manual_seed(hash((task.seed, epoch, task.rank)))
        sums = {name: _Sums(task.objective.tally(task.samples)) for name in (train, *measured)}
        self.learner.train()
        feed = self._feed(train, source)
        waited = sum(each.waited for each in self._feeds.values())
        num_learnt = num_reported = 0
        clock = time.monotonic()
        for window in feed.windows(epoch):
            output = np.empty((len(window.y), *self._tail), np.float32)
            weights = self._loss_weights(window)
            for loss, end in self.learn(window, weights, output):
                sums[train].loss += loss
                if time.monotonic() - clock > PROGRESS_EVERY:
                    progress(num_learnt + end - num_reported)
                    num_reported, clock = num_learnt + end, time.monotonic()
            num_learnt += len(window.y)
            sums[train].add(window, self._truth(window), weights, output)
        self.network.eval()
        for name in measured:
            for window in self._feed(name, source).windows(epoch, shuffle=False):
                self._measure(window, sums[name])
        splits = {name: self._over_all_ranks(total) for name, total in sums.items()}
        progress(num_learnt - num_reported)
        return EpochResult(
            epoch,
            splits,
            sums[test].tally.detail() if test in sums else {},
            num_learnt,
            self._checkpoint(epoch) if task.rank == 0 else None,
            sum(each.waited for each in self._feeds.values()) - waited,
        )

    def _feed(self, name: str, source: BlockSource) -> Feed:
        if name not in self._feeds:
            self._feeds[name] = Feed(
                source,
                self.task.assignments[SPLITS.index(name)],
                rank=self.task.rank,
                split=SPLITS.index(name),
                row_shape=self.task.row_shape,
                with_missing=self._takes_missing or self._learns_rows,
                y_tail=self.task.objective.y_tail,
            )
        feed = self._feeds[name]
        feed.source = source
        return feed

    def _truth(self, window: Window) -> Any:
        """What the outputs of a window should be: labels, targets, or the rows themselves."""
        if not self._learns_rows:
            return window.y
        assert window.missing is not None  # the feed makes it
        return Rows(window.x, window.missing, window.y)

    def _loss_weights(self, window: Window) -> NDArray[np.float32]:
        """The weights in the loss: those of the events, times what balances the classes."""
        if self._balance.size == 0:
            return window.w
        return window.w * self._balance[window.y.astype(np.int64)]

    def learn(
        self, window: Window, weights: NDArray[np.float32], output: NDArray[np.float32]
    ) -> Iterator[tuple[float, int]]:
        """Take every step of a window, giving its loss and how far it has come.

        What the network gives is written to ``output``.
        """
        batch = self._cutter(window, weights)
        learner: Any = self.learner
        output_tensor = torch.from_numpy(output)
        bounds = window.bounds.tolist()
        for step, size in enumerate(window.step_sizes.tolist()):
            begin, end = bounds[step], bounds[step + 1]
            inputs, truth, w = batch(slice(begin, end))
            # The gradients of all ranks are averaged. This factor makes the average the gradient
            # of the mean loss over the whole batch, however the batch is divided.
            factor = self.task.num_ranks / (size * self.task.mean_weight)
            self.optimiser.zero_grad()
            try:
                outputs = learner(*inputs).reshape(end - begin, *self._tail)
                loss: Any = self.loss(outputs, truth, w)
                loss.backward(torch.tensor(factor))
            except ModelError:  # the user's loss tells where it failed
                raise
            except RAISED as error:  # whatever the user's code raises
                self._blame(error, end - begin)
                raise
            self.optimiser.step()
            output_tensor[begin:end] = outputs.detach()
            yield float(loss.detach()), end

    def _blame(self, error: BaseException, num_events: int) -> None:
        """Raise a ModelError for what comes from the network, and not from a lost rank."""
        frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
        is_own = any(frame.f_locals.get("self") is self.network for frame in frames)
        if is_own or self.task.num_ranks == 1 or isinstance(error, USER_ERRORS):
            raise self.task.model.error(
                f"failed on a batch of {num_events} events of rank {self.task.rank}", error
            ) from error

    def _measure(self, window: Window, sums: _Sums) -> None:
        weights = self._loss_weights(window)
        batch = self._cutter(window, weights)
        output = np.empty((len(window.y), *self._tail), np.float32)
        with torch.inference_mode():
            for begin in range(0, len(output), EVALUATION_ROWS):
                part = slice(begin, begin + EVALUATION_ROWS)
                inputs, truth, w = batch(part)
                try:
                    outputs = self.network(*inputs).reshape(-1, *self._tail)
                except RAISED as error:  # whatever the user's code raises
                    self._blame(error, len(w))
                    raise
                output[part] = outputs.numpy()
                sums.loss += float(self.loss(outputs, truth, w))
        sums.add(window, self._truth(window), weights, output)

    def _cutter(self, window: Window, weights: NDArray[np.float32]) -> Callable[[slice], Any]:
        """Gives of some rows the network's inputs, what the loss compares with, and weights."""
        x, y, w = map(torch.from_numpy, (window.x, window.y, weights))
        rows: tuple[torch.Tensor, ...] = (x,)
        if window.missing is not None:
            rows += (torch.from_numpy(window.missing),)
        num_inputs = 2 if self._takes_missing else 1

        def cut(part: slice) -> tuple[Any, Any, torch.Tensor]:
            tensors = tuple(tensor[part] for tensor in rows)
            return tensors[:num_inputs], tensors if self._learns_rows else y[part], w[part]

        return cut

    def _over_all_ranks(self, sums: _Sums) -> SplitMetrics:
        """The metrics of all ranks; the tally then holds the events of all."""
        packed = torch.from_numpy(
            np.concatenate([[sums.loss, sums.weights, sums.num_events], sums.tally.sums])
        )
        if self.task.num_ranks > 1:
            dist.all_reduce(packed)
        loss, weights, num_events = packed[:3].tolist()
        sums.tally.sums = packed[3:].numpy()
        if not np.isfinite(loss):
            raise TrainingError(
                "the loss is not finite: the learning rate, a weight or an encoded value (see "
                "encode.normalisation) may be too large, or the network divides by zero",
                rank=self.task.rank,
            )
        mean = loss / weights if weights > 0 else None
        return SplitMetrics(int(num_events), mean, sums.tally.values())

    def _checkpoint(self, epoch: int) -> bytes:
        buffer = io.BytesIO()
        state = {
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "epoch": epoch,
        }
        torch.save(state, buffer)
        return buffer.getvalue()


class _Sums:
    """Sums over the events of one split at one rank."""

    def __init__(self, tally: Tally) -> None:
        self.tally = tally
        self.loss = 0.0
        self.weights = 0.0
        self.num_events = 0

    def add(
        self, window: Window, truth: Any, weights: NDArray[np.float32], output: NDArray[np.float32]
    ) -> None:
        self.weights += float(weights.sum(dtype=np.float64))
        self.num_events += len(window.y)
        self.tally.add(output, truth, window.w)


def load_state(state: bytes) -> dict[str, Any]:
    """The content of a checkpoint: plain tensors and numbers, nothing executable."""
    return torch.load(io.BytesIO(state), weights_only=True)  # type: ignore[no-any-return]


def interface_of(host: str) -> str | None:
    """The network interface that has the address of a host, which is this one; None if unknown."""
    try:
        addresses_of_host = {str(info[4][0]) for info in socket.getaddrinfo(host, None)}
    except OSError:
        return None
    for name, addresses in psutil.net_if_addrs().items():
        if any(address.address.partition("%")[0] in addresses_of_host for address in addresses):
            return name
    return None
