"""Assigns events to ranks, and orders them within every epoch; arithmetic on counts alone.

Every event of a split belongs to exactly one rank for the whole run, so that its block can stay
where it is used. Each rank gets an equal part of every sample. In an epoch a rank goes through
its events in *windows*: as many events as fit in memory as dense rows, with all samples in
proportion, in an order that depends on the seed, the epoch and the rank only. All ranks take the
same number of steps in every window.

Where a piece or a window begins is looked up in cumulative counts, so that a rank's work grows with
the number of its pieces alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Piece:
    """Some of a block's events: places [start, stop) in the run's fixed order of the block."""

    block: int
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class Share:
    """The part of a piece that falls into one window: [start, stop) in the epoch's order."""

    piece: Piece
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True)
class Epoch:
    """The pieces of a rank in the order of an epoch.

    Parameters
    ----------
    lines : tuple, one entry per sample, of (tuple of Piece, ndarray of int64)
        The pieces, and where each of them ends among the sample's events.
    num_windows : int
        Windows of the epoch.
    """

    lines: tuple[tuple[tuple[Piece, ...], NDArray[np.int64]], ...]
    num_windows: int

    def window(self, window: int) -> list[Share]:
        """What a rank reads in a window."""
        shares: list[Share] = []
        for owned, ends in self.lines:
            total = int(ends[-1]) if ends.size else 0
            low = _part(total, window, self.num_windows)
            high = _part(total, window + 1, self.num_windows)
            shares += [Share(owned[i], start, stop) for i, start, stop in _between(ends, low, high)]
        return shares


@dataclass(frozen=True)
class Assignment:
    """The events of every rank.

    Parameters
    ----------
    pieces : tuple, one entry per rank, of tuples, one per sample, of Piece
        What each rank owns.
    window_events : int
        Events in one window of one rank; rounding may add one of each sample but the first.
    batch_size : int
        Events per step over all ranks together.
    seed : int
        Seed of every order.
    """

    pieces: tuple[tuple[tuple[Piece, ...], ...], ...]
    window_events: int
    batch_size: int
    seed: int

    @property
    def num_ranks(self) -> int:
        """Number of ranks."""
        return len(self.pieces)

    @cached_property
    def _totals(self) -> tuple[tuple[int, ...], ...]:
        """By rank and sample: events."""
        return tuple(tuple(sum(map(len, pieces)) for pieces in samples) for samples in self.pieces)

    @cached_property
    def num_windows(self) -> int:
        """Windows per epoch, the same for all ranks."""
        most = max(self.num_events(rank) for rank in range(self.num_ranks))
        return max(1, math.ceil(most / self.window_events))

    def num_events(self, rank: int) -> int:
        """Events that a rank goes through in an epoch."""
        return sum(self._totals[rank])

    def blocks(self, rank: int) -> list[int]:
        """Numbers of the blocks that a rank needs, ascending."""
        return sorted({piece.block for sample in self.pieces[rank] for piece in sample})

    def window_size(self, rank: int, window: int) -> int:
        """Events of a rank in a window; every rank can compute it for every other."""
        return sum(
            _part(total, window + 1, self.num_windows) - _part(total, window, self.num_windows)
            for total in self._totals[rank]
        )

    def num_steps(self, window: int) -> int:
        """Steps in a window, the same for all ranks; each has at least one event somewhere."""
        return self._steps_of(self._sizes(window))

    def batch_bounds(self, rank: int, window: int) -> NDArray[np.int64]:
        """Where each batch of a rank begins in a window, shape (steps + 1,)."""
        return _bounds(self.window_size(rank, window), self.num_steps(window))

    def step_sizes(self, window: int) -> NDArray[np.int64]:
        """Events over all ranks in each step of a window, shape (steps,)."""
        sizes = self._sizes(window)
        steps = self._steps_of(sizes)
        bounds = np.zeros(steps + 1, dtype=np.int64)
        for size in sizes:
            bounds += _bounds(size, steps)
        return np.diff(bounds)

    def _sizes(self, window: int) -> list[int]:
        return [self.window_size(rank, window) for rank in range(self.num_ranks)]

    def _steps_of(self, sizes: Sequence[int]) -> int:
        by_batch = math.ceil(sum(sizes) / self.batch_size)
        per_rank = math.ceil(self.batch_size / self.num_ranks)
        return max(by_batch, math.ceil(max(sizes) / per_rank))

    def epoch(self, rank: int, epoch: int, *, shuffle: bool = True) -> Epoch:
        """The order in which a rank goes through its pieces in an epoch."""
        lines = []
        for sample, owned in enumerate(self.pieces[rank]):
            if shuffle:
                order = _rng(self.seed, epoch, rank, sample).permutation(len(owned))
                owned = tuple(owned[place] for place in order.tolist())
            lines.append((owned, _ends(list(map(len, owned)))))
        return Epoch(tuple(lines), self.num_windows)

    def rows(self, share: Share, *, num_rows: int, epoch: int) -> NDArray[np.int64]:
        """Which of a block's ``num_rows`` events of the split belong to a share, ascending."""
        piece = share.piece
        owned = _rng(self.seed, 1, piece.block).permutation(num_rows)[piece.start : piece.stop]
        if (share.start, share.stop) != (0, len(piece)):
            order = _rng(self.seed, 2, epoch, piece.block, piece.start).permutation(len(piece))
            owned = owned[order[share.start : share.stop]]
        return np.sort(owned)

    def positions(self, rank: int, window: int, *, epoch: int) -> NDArray[np.int64]:
        """The shuffled place in the window of each of its events, in the order of its shares."""
        size = self.window_size(rank, window)
        return _rng(self.seed, 3, epoch, rank, window).permutation(size)


def assign(
    sizes: Sequence[tuple[str, int]],
    *,
    ranks: int,
    batch_size: int,
    window_events: int,
    seed: int,
) -> Assignment:
    """Assign the events of one split to ranks.

    Parameters
    ----------
    sizes : sequence of (sample, events)
        For each block the sample's name and the number of its events in the split.
    ranks : int
        Number of ranks.
    batch_size : int
        Events per step over all ranks.
    window_events : int
        Most events that a rank holds as dense rows at once.
    seed : int
        Seed of every order.

    Returns
    -------
    Assignment
        Every event at exactly one rank; each rank has ⌊n/ranks⌋ or ⌈n/ranks⌉ events of a sample.
    """
    by_sample: dict[str, list[int]] = {}
    for block, (sample, num_events) in enumerate(sizes):
        if num_events:
            by_sample.setdefault(sample, []).append(block)
    pieces: list[list[tuple[Piece, ...]]] = [[] for _ in range(ranks)]
    for number, sample in enumerate(sorted(by_sample)):
        blocks = by_sample[sample]
        order = _rng(seed, 0, number).permutation(len(blocks))
        line = [blocks[i] for i in order.tolist()]
        ends = _ends([sizes[block][1] for block in line])
        total = int(ends[-1])
        for rank in range(ranks):
            low, high = _part(total, rank, ranks), _part(total, rank + 1, ranks)
            owned = [Piece(line[i], start, stop) for i, start, stop in _between(ends, low, high)]
            pieces[rank].append(tuple(owned))
    return Assignment(tuple(map(tuple, pieces)), max(window_events, 1), batch_size, seed)


def follow(
    leader: Assignment,
    led: Sequence[tuple[str, int]],
    sizes: Sequence[tuple[str, int]],
    *,
    window_events: int,
) -> Assignment:
    """Assign the events of another split to the ranks that have their blocks already.

    Parameters
    ----------
    leader : Assignment
        Of the split that the ranks use first.
    led, sizes : sequence of (sample, events)
        For each block the sample's name and the number of its events, in the leader's split and
        in this one.
    window_events : int
        Most events that a rank holds as dense rows at once.

    Returns
    -------
    Assignment
        Every event at exactly one rank. Those of a block are divided as the leader's are; blocks of
        which the leader has no event go to the ranks in turn.
    """
    pieces = []
    for rank in range(leader.num_ranks):
        groups = []
        for sample in leader.pieces[rank]:
            owned = []
            for piece in sample:
                size, total = sizes[piece.block][1], led[piece.block][1]
                start, stop = size * piece.start // total, size * piece.stop // total
                if start < stop:
                    owned.append(Piece(piece.block, start, stop))
            groups.append(tuple(owned))
        rest = range(rank, len(sizes), leader.num_ranks)
        alone = [n for n in rest if sizes[n][1] and not led[n][1]]
        groups.append(tuple(Piece(n, 0, sizes[n][1]) for n in alone))
        pieces.append(tuple(groups))
    return Assignment(tuple(pieces), max(window_events, 1), leader.batch_size, leader.seed)


def _ends(sizes: list[int]) -> NDArray[np.int64]:
    return np.cumsum(np.array(sizes, dtype=np.int64))


def _between(ends: NDArray[np.int64], low: int, high: int) -> list[tuple[int, int, int]]:
    """Which of the things that end at ``ends`` have some of [low, high), and from where to where.

    Each has at least one event.
    """
    if low >= high:
        return []
    first = int(ends.searchsorted(low, side="right"))
    last = int(ends.searchsorted(high, side="left"))
    begin = int(ends[first - 1]) if first else 0
    parts = []
    for number, end in enumerate(ends[first : last + 1].tolist(), first):
        parts.append((number, max(low - begin, 0), min(high, end) - begin))
        begin = end
    return parts


def _bounds(size: int, steps: int) -> NDArray[np.int64]:
    return np.arange(steps + 1, dtype=np.int64) * size // max(steps, 1)


def _part(total: int, index: int, num_parts: int) -> int:
    return total * index // num_parts


def _rng(*seeds: int) -> np.random.Generator:
    return np.random.default_rng(list(seeds))
