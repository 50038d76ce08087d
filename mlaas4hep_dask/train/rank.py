"""One rank of a training: a torch process that goes through its events epoch by epoch.

A rank lives in a worker process from its first epoch to its last, so that the process group, the
network and the buffers are made once; each epoch is one call that returns a checkpoint.
"""

from __future__ import annotations

import io
import pickle
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import copy
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from mlaas4hep_dask.journal import SPLITS
from mlaas4hep_dask.train.assign import Assignment
from mlaas4hep_dask.train.chunks import chunk_of
from mlaas4hep_dask.train.device_rows import DeviceRows
from mlaas4hep_dask.train.exchange import machine
from mlaas4hep_dask.train.feed import BlockSource, Feed, Rows, Window
from mlaas4hep_dask.train.group import Group
from mlaas4hep_dask.train.learner import Learner, require_finite, unusable
from mlaas4hep_dask.train.meeting import Board
from mlaas4hep_dask.train.sample import Sample
from mlaas4hep_dask.train.session import (
    EpochResult,
    RankFacts,
    RankTask,
    SplitMetrics,
)
from mlaas4hep_dask.train.within import Within, own_buffers, windows_left

PROGRESS_EVERY = 0.5  # seconds


class Rank:
    """What learns, and its place among the other ranks."""

    _windows: Iterator[tuple[int, Window]] | None = None  # those that are left of an epoch
    _within: Within | None = None
    _steps_before = 0  # of the epoch, in another process
    _own_buffers: Sequence[torch.Tensor] = ()

    def __init__(self, task: RankTask, state: bytes | None, parts: Sequence[bytes] = ()) -> None:
        self.task = task
        torch.set_num_threads(1)  # one rank per core; threads of several ranks would compete
        if task.device != "cpu":
            torch.cuda.set_device(task.device)  # of this thread, in which all of a rank is done
        self.group = Group(task)
        self.learner = Learner(task)
        self._feeds: dict[str, Feed] = {}
        if state is not None:
            self.take_up(state)
        if parts:
            self._go_on(parts)

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
        is_shareable = all(p.dtype == torch.float32 and p.is_cpu for p in parameters)
        num_values = sum(p.numel() for p in parameters)
        return RankFacts(machine(), num_values if is_shareable else None)

    def join(self, board: Board, memory: str | None) -> None:
        """Meet the other ranks, once however often it is called; it takes all of them.

        Parameters
        ----------
        board, memory
            As of `Group.join`.
        """
        network, num_values = self.learner.network, self.facts().num_values
        wrapped = self.group.join(board, memory, network, num_values)
        if wrapped is not None:
            self.learner.wrapped = wrapped

    def run_epoch(
        self,
        source: BlockSource,
        progress: Callable[[int], None],
        epoch: int,
        pause_after: float | None = None,
    ) -> EpochResult:
        """Learn from every training event once, then measure the validation events.

        As many training events, chosen at random, are measured in the same way. With chunks it is
        every event of one of them, as often as the task says.

        Parameters
        ----------
        source : BlockSource
            Gives blocks.
        progress : callable
            Told numbers of events done, now and then.
        epoch : int
            Number of the epoch, from 1.
        pause_after : float, optional
            Seconds after which the result is what to go on from, in a next call or in another
            process, if the epoch is not over by then.
        """
        task, learner = self.task, self.learner
        train, validation, _ = SPLITS
        chunk, within = self._chunk(epoch), self._begun(epoch)
        passes = range((epoch - 1) * task.passes + 1, epoch * task.passes + 1)
        if self._windows is None:
            if task.num_chunks > 1:
                self._feeds.pop(train, None)  # of the chunk before
            self._windows = windows_left(self._feed(train, source, chunk), passes, within.window)
        waited = sum(each.waited for each in self._feeds.values())
        learner.wrapped.train()
        began = clock = time.monotonic()
        num_windows = chunk.num_windows * task.passes
        for number, window in self._windows:
            # Whoever begins here draws the same.
            torch.manual_seed(hash((task.seed, epoch, task.rank, within.window)))
            weights = learner.loss_weights(window)
            for loss, end in learner.learn(window, weights):
                within.loss_sums[0] += loss
                if time.monotonic() - clock > PROGRESS_EVERY:
                    progress(within.num_learnt + end - within.num_reported)
                    within.num_reported, clock = within.num_learnt + end, time.monotonic()
            within.num_learnt += len(window.y)
            within.loss_sums[1] += weights.sum(dtype=np.float64)
            if number == passes[-1]:
                within.sample.add(window)
            within.window += 1
            if within.window < num_windows and self._pauses(began, pause_after):
                within.waited += sum(each.waited for each in self._feeds.values()) - waited
                return self._under_way(within)
        self._windows, self._within = None, None
        self._average_buffers()
        kept = within.sample.window()
        learnt = self._measured([] if kept is None else [kept])
        measured = self._measured(self._feed(validation, source).windows(0, shuffle=False))
        learning_rate = learner.stepper.learning_rate
        learner.stepper.end_epoch(measured.as_json().get(task.monitor))
        progress(within.num_learnt - within.num_reported)
        sums = self._over_all_ranks(np.array([*within.loss_sums, within.num_learnt / task.passes]))
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
            within.num_learnt,
            self._checkpoint(epoch) if task.rank == 0 else None,
            within.waited + sum(each.waited for each in self._feeds.values()) - waited,
            chunk.num_rounds,
            self._stops(),
        )

    def _chunk(self, epoch: int) -> Assignment:
        """The training events of an epoch."""
        train, num_chunks = self.task.assignments.train, self.task.num_chunks
        return train if num_chunks == 1 else chunk_of(train, epoch - 1, num_chunks)

    def _begun(self, epoch: int) -> Within:
        """What is known of an epoch, which begins now unless it was begun."""
        within, hooks = self._within or self._new(epoch), self.learner.hooks
        self._within = within
        if self._own_buffers:  # later than ranks meet, when torch copies those of rank 0 to all
            for buffer, value in zip(self._buffers(), self._own_buffers, strict=True):
                buffer.copy_(value)
            self._own_buffers = ()
        if hooks.context.epoch != epoch:
            hooks.begin_epoch(epoch, self._steps_before)
            self._steps_before = 0
        return within

    def _new(self, epoch: int) -> Within:
        rank, validation = self.task.rank, self.task.assignments.validation
        sizes = self._chunk(epoch).num_events(rank), validation.num_events(rank)
        return Within(epoch, Sample(*sizes, self.task.row_shape))

    def _pauses(self, began: float, pause_after: float | None) -> bool:
        """Whether rank 0 wants to pause, as all ranks have to at once."""
        if pause_after is None:
            return False
        pauses = torch.tensor(int(time.monotonic() - began >= pause_after))
        if self.task.num_ranks > 1:
            dist.broadcast(pauses, 0)
        return bool(pauses)

    def _under_way(self, within: Within) -> EpochResult:
        """What to go on from."""
        context, buffer = self.learner.hooks.context, io.BytesIO()
        state = {
            **within.state(),
            "num_ranks": self.task.num_ranks,
            "buffers": on_cpu(self._buffers()),
            "step": context.step,
            "stops": context.stops,
        }
        torch.save(state, buffer)
        return EpochResult(
            within.epoch,
            {},
            within.num_learnt,
            self._checkpoint(within.epoch) if self.task.rank == 0 else None,
            within.waited,
            self.task.assignments.train.rounds or 1,
            window=within.window,
            part=buffer.getvalue(),
        )

    def _go_on(self, parts: Sequence[bytes]) -> None:
        """Go on within an epoch, from what this rank has left, or all of another number."""
        task, states = self.task, [load_state(part) for part in parts]
        within = self._new(states[0]["epoch"])
        within.take_up(states, task.rank, task.num_ranks)
        self._own_buffers = own_buffers(states, task.num_ranks)
        self._within, self._steps_before = within, states[0]["step"]
        if any(state["stops"] for state in states):
            self.learner.hooks.context.stop()

    def _buffers(self) -> list[torch.Tensor]:
        """Those of what learns and of what is measured."""
        networks = dict.fromkeys((self.learner.network, self.learner.stepper.measured))
        return [buffer for network in networks for buffer in network.buffers()]

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
        others = []
        for buffer in self._buffers():
            if buffer.is_floating_point():
                mean = buffer.double().cpu()
                dist.all_reduce(mean)
                buffer.copy_(mean / self.task.num_ranks)
            else:  # such as numbers of steps: those of rank 0
                others.append(buffer)
        values: list[Any] = [[buffer.cpu().clone() for buffer in others]]
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
                rows=self._rows,
            )
        feed = self._feeds[name]
        feed.source = source
        return feed

    @property
    def _rows(self) -> Callable[..., Rows]:
        """What makes dense rows where they are learned from."""
        device = self.learner.device
        return Rows if device.type == "cpu" else partial(DeviceRows, device=device)

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
            **on_cpu(self.learner.state()),
            "epoch": epoch,
            "rounds": self.task.assignments.train.rounds,  # on which the order of events depends
        }
        torch.save(state, buffer)
        return buffer.getvalue()


def _mean(total: float, weight: float) -> float | None:
    return total / weight if weight > 0 else None


def load_state(state: bytes) -> dict[str, Any]:
    """The content of a checkpoint: plain tensors and numbers, nothing executable."""
    stream = io.BytesIO(state)
    return torch.load(stream, map_location="cpu", weights_only=True)  # type: ignore[no-any-return]


def on_cpu(value: Any) -> Any:
    """The same with all its tensors on the CPU, so that any machine loads it."""
    if isinstance(value, torch.Tensor):
        return value.cpu()
    if isinstance(value, dict):
        same = copy(value)  # with what torch has noted on it
        same.update((key, on_cpu(each)) for key, each in value.items())
        return same
    return type(value)(map(on_cpu, value)) if type(value) in (list, tuple) else value
