"""Assigns events to ranks, and orders them within every epoch; arithmetic on counts alone.

Every event of a split belongs to exactly one rank for the whole run, so that its block can stay
where it is used. Each rank gets an equal part of every sample, and a part of every file.

In an epoch a rank goes through its events in *rounds*, each of as many blocks as it can hold
packed, drawn over all files in proportion; there is one round where it can hold all. The events of
a round are dealt to *windows*, one after the other, as cards are: each window, which is what fits
in memory as dense rows, has its part of every block of the round, chosen at random, and all its
events are shuffled. All orders depend on the seed and the epoch only. All ranks take the same
number of steps in every window.

Where a piece or a round begins is looked up in cumulative counts, so that a rank's work grows with
the number of its pieces alone.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from mlaas4hep_dask.train.epoch import Epoch, Piece, Share, between, ends_of, part, spread

MAX_PIECES = 1024  # pieces of one round: each is looked at for every window
MAX_CUTS = 4096  # pieces of a sample, for which every file of it is divided among the ranks


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
    files : tuple of int
        Number of the file of every block.
    rounds : int, optional
        Rounds of an epoch; more if these had too many pieces, fewer if there are fewer pieces.
        Without, every window is a round.
    """

    pieces: tuple[tuple[tuple[Piece, ...], ...], ...]
    window_events: int
    batch_size: int
    seed: int
    files: tuple[int, ...]
    rounds: int | None = None

    @property
    def num_ranks(self) -> int:
        """Number of ranks."""
        return len(self.pieces)

    @cached_property
    def _totals(self) -> tuple[tuple[int, ...], ...]:
        """By rank and sample: events."""
        return tuple(tuple(sum(map(len, pieces)) for pieces in samples) for samples in self.pieces)

    @cached_property
    def _most(self) -> int:
        """Events of the rank that has most."""
        return max(self.num_events(rank) for rank in range(self.num_ranks))

    @cached_property
    def num_rounds(self) -> int:
        """Rounds per epoch, the same for all ranks."""
        if self.rounds is None:
            return max(1, -(-self._most // self.window_events))
        most = max(sum(map(len, samples)) for samples in self.pieces)
        return max(min(self.rounds, most), -(-most // MAX_PIECES), 1)

    @cached_property
    def windows_per_round(self) -> int:
        """Windows of every round of every rank."""
        return max(1, -(-self._most // (self.num_rounds * self.window_events)))

    @property
    def num_windows(self) -> int:
        """Windows per epoch, the same for all ranks."""
        return self.num_rounds * self.windows_per_round

    def num_events(self, rank: int) -> int:
        """Events that a rank goes through in an epoch."""
        return sum(self._totals[rank])

    def blocks(self, rank: int) -> list[int]:
        """Numbers of the blocks that a rank needs, ascending."""
        return sorted({piece.block for sample in self.pieces[rank] for piece in sample})

    def window_size(self, rank: int, window: int) -> int:
        """Events of a rank in a window; every rank can compute it for every other."""
        number, place = divmod(window, self.windows_per_round)
        size = sum(
            part(total, number + 1, self.num_rounds) - part(total, number, self.num_rounds)
            for total in self._totals[rank]
        )
        return len(range(place, size, self.windows_per_round))

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
        """The order in which a rank goes through its pieces in an epoch.

        Ranks that have parts of the same blocks come to them at about the same time.
        """
        if shuffle:
            rng = _rng(self.seed, 4, epoch)
            keys, starts = rng.random(len(self.files)), rng.random(max(self.files, default=0) + 1)
        lines = []
        for owned in self.pieces[rank]:
            if shuffle and len(owned) > 1:
                blocks = np.array([piece.block for piece in owned])
                files = np.array(self.files)[blocks]
                order = spread(files, keys[blocks], starts)
                owned = tuple(owned[place] for place in order.tolist())
            lines.append((owned, ends_of(list(map(len, owned)))))
        return Epoch(tuple(lines), self.num_rounds, self.windows_per_round)

    def order(self, share: Share, *, num_rows: int, epoch: int) -> NDArray[np.int64]:
        """Which of a block's ``num_rows`` events of the split a round uses, in their order."""
        piece = share.piece
        owned = np.arange(num_rows)
        if len(piece) < num_rows:
            owned = _rng(self.seed, 1, piece.block).permutation(num_rows)[piece.start : piece.stop]
        if len(share) < len(piece) or self.windows_per_round > 1:
            owned = owned[
                _rng(self.seed, 2, epoch, piece.block, piece.start).permutation(owned.size)
            ]
        return owned[share.start : share.stop]

    def positions(self, rank: int, window: int, *, epoch: int) -> NDArray[np.int64]:
        """The shuffled place in the window of each of its events, in the order of its shares."""
        size = self.window_size(rank, window)
        return _rng(self.seed, 3, epoch, rank, window).permutation(size)


class Assignments(NamedTuple):
    """The events of every rank, of the three splits."""

    train: Assignment
    validation: Assignment
    test: Assignment

    def in_rounds(self, rounds: int | None) -> Self:
        """The same, with training epochs of so many rounds."""
        return self._replace(train=replace(self.train, rounds=rounds))


def assign(
    sizes: Sequence[tuple[str, int]],
    *,
    ranks: int,
    batch_size: int,
    window_events: int,
    seed: int,
    files: Sequence[Hashable] | None = None,
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
    files : sequence, optional
        For each block what tells its file from others of its sample; by default all blocks of a
        sample are of one.

    Returns
    -------
    Assignment
        Every event at exactly one rank; each rank has ⌊n/ranks⌋ or ⌈n/ranks⌉ events of a sample.
        Its epochs have one round.
    """
    by_sample: dict[str, list[int]] = {}
    for block, (sample, num_events) in enumerate(sizes):
        if num_events:
            by_sample.setdefault(sample, []).append(block)
    names = [(sample, files[block] if files else None) for block, (sample, _) in enumerate(sizes)]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    file_of = tuple(numbers[name] for name in names)
    rng = _rng(seed, 0)
    keys, starts = rng.random(len(sizes)), rng.random(len(numbers))
    pieces: list[list[tuple[Piece, ...]]] = [[] for _ in range(ranks)]
    for sample in sorted(by_sample):
        blocks = np.array(by_sample[sample])
        of_file = np.array(file_of)[blocks]
        lines = [spread(of_file, keys[blocks], starts)]
        if len(blocks) * ranks <= MAX_CUTS:
            lines = [
                lines[0][of_file[lines[0]] == file] for file in dict.fromkeys(of_file.tolist())
            ]
        owned: list[list[Piece]] = [[] for _ in range(ranks)]
        turn = 0
        for line in lines:
            numbered = blocks[line].tolist()
            ends = ends_of([sizes[block][1] for block in numbered])
            total, low = int(ends[-1]), 0
            for place in range(ranks):
                rank = (turn + place) % ranks
                high = low + total // ranks + (place < total % ranks)
                cut = between(ends, low, high)
                owned[rank] += [Piece(numbered[i], start, stop) for i, start, stop in cut]
                low = high
            turn += total % ranks
        for rank in range(ranks):
            pieces[rank].append(tuple(owned[rank]))
    return Assignment(
        tuple(map(tuple, pieces)), max(window_events, 1), batch_size, seed, file_of, rounds=1
    )


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
    return Assignment(
        tuple(pieces), max(window_events, 1), leader.batch_size, leader.seed, leader.files
    )


def _bounds(size: int, steps: int) -> NDArray[np.int64]:
    return np.arange(steps + 1, dtype=np.int64) * size // max(steps, 1)


def _rng(*seeds: int) -> np.random.Generator:
    return np.random.default_rng(list(seeds))
