"""Feed: blocks become windows of shuffled dense rows, ahead of their use."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mlaas4hep_dask.encode.block import Block
from mlaas4hep_dask.encode.packed import Packed
from mlaas4hep_dask.errors import DataError
from mlaas4hep_dask.journal import SPLITS
from mlaas4hep_dask.train.assign import Assignment
from mlaas4hep_dask.train.epoch import Epoch, Round

TRAIN, VALIDATION, TEST = range(len(SPLITS))  # values of Block.split


# A round, and for each of its shares the rows of the block that are of it.
Ready = tuple[Round, list[NDArray[np.int32]]]


class BlockSource(Protocol):
    """Where a rank gets its blocks from."""

    def prefetch(self, blocks: Sequence[int], split: int) -> None:
        """Start to fetch blocks that will be asked for next; all others may be let go."""

    def get(self, block: int, split: int) -> Block:
        """The block with this number; perhaps its events of the split alone, in their order."""


@dataclass(frozen=True)
class Window:
    """Dense rows of some events in the order in which they are used.

    Parameters
    ----------
    x : ndarray or Tensor of float32, shape (events, columns) or (events, channels, ny, nx)
        Inputs, 0 where missing; a tensor where they are made on the device that learns.
    missing : ndarray or Tensor of bool, of the same shape, or None
        Missing mask, if it was asked for.
    y : ndarray of float32, shape (events,) or (events, targets)
        Labels, or targets of a regression; numbers of samples of a reconstruction.
    w : ndarray of float32, shape (events,)
        Weights.
    bounds : ndarray of int64, shape (steps + 1,)
        Where each batch begins.
    step_sizes : ndarray of int64, shape (steps,)
        Events over all ranks in each step.
    """

    x: Any
    missing: Any
    y: NDArray[np.float32]
    w: NDArray[np.float32]
    bounds: NDArray[np.int64]
    step_sizes: NDArray[np.int64]


class Rows:
    """Where windows have their dense rows, which take turns: here in the memory of the CPU.

    Parameters
    ----------
    shape : tuple of int
        Of the largest window.
    num_buffers : int
        How many windows there are at once.
    with_missing : bool
        Make the missing mask too.
    """

    def __init__(self, shape: tuple[int, ...], num_buffers: int, *, with_missing: bool) -> None:
        self._x = [np.empty(shape, np.float32) for _ in range(num_buffers)]
        self._missing = [np.empty(shape, np.bool_) for _ in range(num_buffers * with_missing)]

    def written(self, number: int, size: int) -> AbstractContextManager[tuple[Any, Any]]:
        """Within it rows and mask of a window are written, which may be those of an earlier one."""
        place = number % len(self._x)
        return nullcontext(
            (self._x[place][:size], self._missing[place][:size] if self._missing else None)
        )

    def write(
        self,
        events: Packed,
        rows: NDArray[np.int64],
        positions: NDArray[np.int64],
        x: Any,
        missing: Any,
    ) -> None:
        """Write the dense rows of some events to their positions in a window."""
        if missing is None:
            events.dense(rows, positions=positions, out=x)
        else:
            events.inputs(rows, positions=positions, out=(x, missing))

    def used(self, number: int) -> AbstractContextManager[None]:
        """Within it the rows of a window are used."""
        del number
        return nullcontext()


class Feed:
    """Windows of one split for one rank.

    A thread makes the next window while the current one is used; two buffers take turns, since
    touching fresh memory costs more than filling it.

    Parameters
    ----------
    source : BlockSource
        Gives blocks.
    assignment : Assignment
        What this rank reads.
    rank : int
        This rank.
    split : int
        `TRAIN`, `VALIDATION` or `TEST`.
    row_shape : tuple of int
        Shape of one event: (columns,), or (channels, ny, nx) of an image.
    with_missing : bool
        Make the missing mask too.
    y_tail : tuple of int
        Shape of what is kept of one event to learn: (targets,), or () of a label.
    rows : callable
        Makes `Rows`, on the device that learns.

    Attributes
    ----------
    waited : float
        Seconds for which windows that were asked for were not ready, in all epochs.
    """

    def __init__(
        self,
        source: BlockSource,
        assignment: Assignment,
        *,
        rank: int,
        split: int,
        row_shape: tuple[int, ...],
        with_missing: bool = False,
        y_tail: tuple[int, ...] = (),
        rows: Callable[..., Rows] = Rows,
    ) -> None:
        self.source = source
        self.waited = 0.0
        self._assignment = assignment
        self._rank = rank
        self._split = split
        self._y_tail = y_tail
        shape = (assignment.most_events(rank), *row_shape)
        self._num_buffers = min(2, assignment.num_windows)
        self._rows = rows(shape, self._num_buffers, with_missing=with_missing)

    @property
    def num_windows(self) -> int:
        """Windows of an epoch."""
        return self._assignment.num_windows

    def windows(self, epoch: int, *, shuffle: bool = True, first: int = 0) -> Iterator[Window]:
        """The windows of an epoch from the ``first``; each is valid until the next is asked for.

        Blocks of the rounds before are not asked for.
        """
        ready: queue.Queue[Window | BaseException] = queue.Queue(maxsize=1)
        free_buffers = threading.Semaphore(self._num_buffers)  # buffers that may be written
        stopped = threading.Event()

        per_round = self._assignment.windows_per_round

        def fill() -> None:
            try:
                order = self._assignment.epoch(self._rank, epoch, shuffle=shuffle)
                for number in range(first // per_round, self._assignment.num_rounds):
                    of_round = self._round(order, number, epoch)
                    begin = max(first, number * per_round)
                    for window in range(begin, (number + 1) * per_round):
                        free_buffers.acquire()
                        if stopped.is_set():
                            return
                        ready.put(self._window(window, of_round, epoch, shuffle))
            except BaseException as error:  # handed to the thread that waits for the window
                ready.put(error)

        thread = threading.Thread(target=fill, name="feed", daemon=True)
        thread.start()
        try:
            for number in range(first, self._assignment.num_windows):
                began = time.perf_counter()
                window = ready.get()
                self.waited += time.perf_counter() - began
                if isinstance(window, BaseException):
                    raise window
                with self._rows.used(number):
                    yield window
                free_buffers.release()
        finally:
            stopped.set()
            free_buffers.release()
            while thread.is_alive():  # it may be waiting to hand over a window
                try:
                    ready.get(timeout=0.01)
                except queue.Empty:
                    continue
            thread.join()

    def _round(self, order: Epoch, number: int, epoch: int) -> Ready:
        """Look up which events a round has; its blocks are on their way from here on."""
        assignment = self._assignment
        of_round = order.round(number)
        blocks = [share.piece.block for share in of_round.shares]
        if number + 1 < assignment.num_rounds:  # remote blocks are on their way meanwhile
            blocks += [share.piece.block for share in order.round(number + 1).shares]
        self.source.prefetch(blocks, self._split)
        orders = []
        for share in of_round.shares:
            block = self.source.get(share.piece.block, self._split)
            members = np.flatnonzero(block.split == self._split)
            if members.size < share.piece.stop:  # the rest would be what the memory held before
                raise DataError(
                    f"block {share.piece.block} has {members.size} events of its split, and "
                    f"{share.piece.stop} were assigned: it is not the one that was planned"
                )
            rows = assignment.order(share, num_rows=members.size, epoch=epoch)
            orders.append(members[rows].astype(np.int32))
        return of_round, orders

    def _window(self, number: int, ready: Ready, epoch: int, shuffle: bool) -> Window:
        assignment = self._assignment
        of_round, orders = ready
        places, bounds = assignment.rows(self._rank, number, epoch=epoch, shuffle=shuffle)
        size = int(bounds[-1])
        y = np.empty((size, *self._y_tail), np.float32)
        w = np.empty(size, np.float32)
        dealt = of_round.window(number % of_round.num_windows)
        by_block = groupby(dealt, lambda d: of_round.shares[d[0]].piece.block)
        with self._rows.written(number, size) as (x, missing):
            for number_of_block, some in by_block:
                block = self.source.get(number_of_block, self._split)
                parts = []
                for share, offset, begin, num in some:
                    # Sorted, as memory is read fastest, but within the share: which of its events
                    # stands where does not depend on the ranks.
                    part = np.sort(orders[share][offset :: of_round.num_windows])
                    parts.append((part, places[begin : begin + num]))
                rows, positions = map(np.concatenate, zip(*parts, strict=True))
                if (positions < 0).any():
                    rows, positions = rows[positions >= 0], positions[positions >= 0]
                if len(parts) > 1:  # shares lie among one another: the block is gone through once
                    order = np.argsort(rows)
                    rows, positions = rows[order], positions[order]
                rows = rows.astype(np.int64)
                self._rows.write(block.encoded, rows, positions, x, missing)
                y[positions] = block.y[rows]
                w[positions] = block.w[rows]
        return Window(x, missing, y, w, bounds, assignment.step_sizes(number))
