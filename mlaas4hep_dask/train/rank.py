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
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import psutil
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch.nn.parallel import DistributedDataParallel

from mlaas4hep_dask.journal import SPLITS
from mlaas4hep_dask.train.assign import Assignment
from mlaas4hep_dask.train.chunks import chunk_of
from mlaas4hep_dask.train.exchange import SharedMemoryExchange, machine
from mlaas4hep_dask.train.feed import TRAIN, BlockSource, Feed, Window
from mlaas4hep_dask.train.learner import Learner, require_finite, unusable
from mlaas4hep_dask.train.meeting import Board, BoardStore
from mlaas4hep_dask.train.sample import Sample
from mlaas4hep_dask.train.session import (
    EpochResult,
    RankFacts,
    RankTask,
    SplitMetrics,
)

TIMEOUT = timedelta(minutes=10)
PROGRESS_EVERY = 0.5  # seconds


class Rank:
    """What learns, and its place among the other ranks."""

    exchange: SharedMemoryExchange | None = None
    _has_joined = _is_abandoned = False

    def __init__(self, task: RankTask, state: bytes | None) -> None:
        self.task = task
        torch.set_num_threads(1)  # one rank per core; threads of several ranks would compete
        self.learner = Learner(task)
        self._feeds: dict[str, Feed] = {}
        if state is not None:
            self.take_up(state)

    def take_up(self, state: bytes) -> None:
        """Go on from a checkpoint.

        Raises
        ------
        TrainingError
            When it is not one of this network.
        """
        try:
            checkpoint = load_state(state)
            # Other ranks, or workers with less memory, may need more.
            rounds = max(checkpoint["rounds"], self.task.assignments.train.rounds or 1)
        except (KeyError, TypeError, ValueError, RuntimeError, pickle.UnpicklingError) as error:
            raise unusable(error, self.task.rank) from error
        self.learner.take_up(checkpoint)
        self.task = replace(self.task, assignments=self.task.assignments.in_rounds(rounds))

    def facts(self) -> RankFacts:
        """What has to be known of all ranks before they can meet."""
        parameters = self.learner.parameters()
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
        wrapped = DistributedDataParallel(self.learner.network, gradient_as_bucket_view=True)
        # Buffers are averaged after every epoch: those of one rank alone know its events alone. As
        # an argument this has one name until torch 2.12, and another one after.
        wrapped.broadcast_buffers = False
        self.exchange = self._share_memory(memory)  # all have met after this
        if self.exchange is not None:
            wrapped.register_comm_hook(None, self.exchange.hook)
        self.learner.wrapped = wrapped
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

        As many training events, chosen at random, are measured in the same way. With chunks it is
        every event of one of them, as often as the task says.
        """
        task, learner = self.task, self.learner
        train, validation, _ = SPLITS
        torch.manual_seed(hash((task.seed, epoch, task.rank)))
        learner.wrapped.train()
        chunk = self._chunk(epoch)
        feed = self._feed(train, source, chunk)
        sample = Sample(
            chunk.num_events(task.rank),
            task.assignments.validation.num_events(task.rank),
            task.row_shape,
        )
        waited = sum(each.waited for each in self._feeds.values())
        num_learnt = num_reported = 0
        loss_sums = np.zeros(2)  # of losses, of weights
        clock = time.monotonic()
        learner.hooks.begin_epoch(epoch)
        passes = range((epoch - 1) * task.passes + 1, epoch * task.passes + 1)
        for number, window in ((n, window) for n in passes for window in feed.windows(n)):
            weights = learner.loss_weights(window)
            for loss, end in learner.learn(window, weights):
                loss_sums[0] += loss
                if time.monotonic() - clock > PROGRESS_EVERY:
                    progress(num_learnt + end - num_reported)
                    num_reported, clock = num_learnt + end, time.monotonic()
            num_learnt += len(window.y)
            loss_sums[1] += weights.sum(dtype=np.float64)
            if number == passes[-1]:
                sample.add(window)
        self._average_buffers()
        kept = sample.window()
        learnt = self._measured([] if kept is None else [kept])
        measured = self._measured(self._feed(validation, source).windows(0, shuffle=False))
        learning_rate = learner.stepper.learning_rate
        learner.stepper.end_epoch(measured.as_json().get(task.monitor))
        progress(num_learnt - num_reported)
        sums = self._over_all_ranks(np.array([*loss_sums, num_learnt / task.passes]))
        loss, weight, num_events = sums.tolist()
        facts = {
            "num_measured": learnt.num_events,
            "learning_loss": _mean(loss, weight),
            "learning_rate": learning_rate,
        }
        splits = {
            train: replace(learnt, num_events=int(num_events), values={**facts, **learnt.values}),
            validation: measured,
        }
        learner.hooks.end_epoch({name: split.as_json() for name, split in splits.items()})
        return EpochResult(
            epoch,
            splits,
            num_learnt,
            self._checkpoint(epoch) if task.rank == 0 else None,
            sum(each.waited for each in self._feeds.values()) - waited,
            chunk.num_rounds,
            self._stops(),
        )

    def _chunk(self, epoch: int) -> Assignment:
        """The training events of an epoch."""
        train, num_chunks = self.task.assignments.train, self.task.num_chunks
        if num_chunks == 1:
            return train
        self._feeds.pop(SPLITS[TRAIN], None)  # of the chunk before
        return chunk_of(train, epoch - 1, num_chunks)

    def _stops(self) -> bool:
        """Whether a hook of any rank has asked to stop."""
        if not self.task.method.hooks:
            return False
        return bool(self._over_all_ranks(np.array([0.0, self.learner.hooks.context.stops]))[1])

    @torch.no_grad()
    def _average_buffers(self) -> None:
        """Give all ranks the mean of their buffers, such as the running averages of BatchNorm."""
        if self.task.num_ranks == 1:
            return
        networks = dict.fromkeys((self.learner.network, self.learner.stepper.measured))
        buffers = [buffer for network in networks for buffer in network.buffers()]
        others = []
        for buffer in buffers:
            if buffer.is_floating_point():
                mean = buffer.double()
                dist.all_reduce(mean)
                buffer.copy_(mean / self.task.num_ranks)
            else:  # such as numbers of steps: those of rank 0
                others.append(buffer)
        values: list[Any] = [[buffer.clone() for buffer in others]]
        dist.broadcast_object_list(values)
        for buffer, value in zip(others, values[0], strict=True):
            buffer.copy_(value)

    def measure(self, source: BlockSource, split: str) -> SplitMetrics:
        """The metrics of the events of a split over all ranks, with curves and tables.

        Training is over then.
        """
        self.learner.hooks.end_training()
        return self._measured(self._feed(split, source).windows(0, shuffle=False), in_detail=True)

    def _measured(self, windows: Iterable[Window], *, in_detail: bool = False) -> SplitMetrics:
        learner, tally = self.learner, self.task.objective.tally(self.task.samples)
        learner.stepper.measured.eval()
        sums = np.zeros(3)  # of losses, of weights, of events
        for window in windows:
            weights = learner.loss_weights(window)
            output, loss = learner.outputs(window, weights)
            sums += loss, weights.sum(dtype=np.float64), len(window.y)
            tally.add(output, learner.truth(window), window.w)
        total = self._over_all_ranks(np.concatenate([sums, tally.sums]))
        tally.sums = total[3:]
        loss, weight, num_events = total[:3].tolist()
        detail = tally.detail() if in_detail else {}
        return SplitMetrics(int(num_events), _mean(loss, weight), tally.values(), detail)

    def _feed(self, name: str, source: BlockSource, chunk: Assignment | None = None) -> Feed:
        if name not in self._feeds:
            self._feeds[name] = Feed(
                source,
                chunk or self.task.assignments[SPLITS.index(name)],
                rank=self.task.rank,
                split=SPLITS.index(name),
                row_shape=self.task.row_shape,
                with_missing=self.learner.needs_missing,
                y_tail=self.task.objective.y_tail,
            )
        feed = self._feeds[name]
        feed.source = source
        return feed

    def _over_all_ranks(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        """The sums of all ranks, of which the first is that of losses."""
        packed = torch.from_numpy(sums)
        if self.task.num_ranks > 1:
            dist.all_reduce(packed)
        require_finite(sums[0], self.task.rank)
        return sums

    def _checkpoint(self, epoch: int) -> bytes:
        buffer = io.BytesIO()
        state = {
            **self.learner.state(),
            "epoch": epoch,
            "rounds": self.task.assignments.train.rounds,  # on which the order of events depends
        }
        torch.save(state, buffer)
        return buffer.getvalue()


def _mean(total: float, weight: float) -> float | None:
    return total / weight if weight > 0 else None


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
