"""Assigns events to ranks, and orders them within every epoch; arithmetic on counts alone.

The events of a split are divided among a fixed number of *shards*, each with an equal part of every
sample, and a part of every file. A rank has shards that follow one another for the whole run, so
that its blocks can stay where they are used; see `mlaas4hep_dask.train.shards`.

In an epoch a shard is gone through in *rounds*, each of as many blocks as can be held packed, drawn
over all files in proportion; there is one round where all can be held. The events of a round are
dealt to *windows*, one after the other, as cards are: each window, which is what fits in memory as
dense rows, has its part of every block of the round, chosen at random, and all its events are
shuffled. Orders depend on the seed, the epoch and the number of rounds alone. Which events a batch
has does not depend on the number of ranks, so that a run may go on with another.

Where a piece or a round begins is looked up in cumulative counts, so that a rank's work grows with
the number of its pieces alone.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from itertools import chain
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from mlaas4hep_dask.train.epoch import Epoch, Piece, Share, between, ends_of, in_turn, times
from mlaas4hep_dask.train.shards import SHARDS, Deal, cuts, part_of, shards_of

MAX_PIECES = 2048  # pieces of one round of all shards: each is looked at for every window


@dataclass(frozen=True)
class Assignment:
    """The events of every shard, and so of every rank.

    Parameters
    ----------
    pieces : tuple, one entry per shard, of tuples, one per sample, of Piece
        What each shard consists of.
    num_ranks : int
        Number of ranks.
    window_events : int
        Events in one window of all ranks together; rounding may add one per shard and sample.
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
    num_ranks: int
    window_events: int
    batch_size: int
    seed: int
    files: tuple[int, ...]
    rounds: int | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), tuple(getattr(self, each.name) for each in fields(self))

    @cached_property
    def _totals(self) -> NDArray[np.int64]:
        """Events, shape (shards, samples)."""
        totals = [[sum(map(len, pieces)) for pieces in samples] for samples in self.pieces]
        return np.array(totals, np.int64).reshape(SHARDS, -1)

    @cached_property
    def num_rounds(self) -> int:
        """Rounds per epoch."""
        if self.rounds is None:
            return max(1, -(-int(self._totals.sum()) // self.window_events))
        by_shard = [sum(map(len, samples)) for samples in self.pieces]
        return max(min(self.rounds, max(by_shard)), -(-sum(by_shard) // MAX_PIECES), 1)

    @cached_property
    def _of_rounds(self) -> NDArray[np.int64]:
        """Events, shape (rounds, shards)."""
        ends = np.arange(self.num_rounds + 1, dtype=np.int64)[:, None]
        sizes = np.zeros((self.num_rounds, SHARDS), np.int64)
        for totals in self._totals.T:
            sizes += np.diff(ends * totals // self.num_rounds, axis=0)
        return sizes

    @cached_property
    def windows_per_round(self) -> int:
        """Windows of every round."""
        return max(1, -(-int(self._of_rounds.sum(1).max()) // self.window_events))

    @property
    def num_windows(self) -> int:
        """Windows per epoch, the same for all ranks."""
        return self.num_rounds * self.windows_per_round

    @cached_property
    def _in_windows(self) -> NDArray[np.int64]:
        """Events over all ranks, shape (windows,)."""
        places = np.arange(self.windows_per_round)
        sizes = np.zeros((self.num_rounds, self.windows_per_round), np.int64)
        for of_shard in self._of_rounds.T:
            sizes += _dealt(of_shard[:, None], places, self.windows_per_round)
        return sizes.ravel()

    def shards(self, rank: int) -> range:
        """The shards of which a rank has events."""
        return shards_of(rank, self.num_ranks)

    def num_events(self, rank: int) -> int:
        """Events that a rank goes through in an epoch; of shards that it shares, about as many."""
        parts = [part_of(rank, shard, self.num_ranks) for shard in range(SHARDS)]
        return int(self._totals.sum(1) @ np.array(parts)) // self.num_ranks

    def most_events(self, rank: int) -> int:
        """No window of a rank has more events than these."""
        largest = _dealt(self._of_rounds.max(0), 0, self.windows_per_round)
        return int(largest[self.shards(rank)].sum())

    def blocks(self, rank: int) -> list[int]:
        """Numbers of the blocks that a rank needs, ascending."""
        shards = self.pieces[self.shards(rank).start : self.shards(rank).stop]
        return sorted({piece.block for samples in shards for each in samples for piece in each})

    def num_steps(self, window: int) -> int:
        """Steps in a window, the same for all ranks; each has at least one event somewhere."""
        return -(-int(self._in_windows[window]) // self.batch_size)

    def step_sizes(self, window: int) -> NDArray[np.int64]:
        """Events over all ranks in each step of a window, shape (steps,)."""
        return np.diff(cuts(int(self._in_windows[window]), self.num_steps(window)))

    def deal(self, window: int) -> Deal:
        """How a window is dealt to batches and ranks."""
        number, place = divmod(window, self.windows_per_round)
        sizes = _dealt(self._of_rounds[number], place, self.windows_per_round)
        return Deal(sizes, self.num_steps(window), self.num_ranks)

    def batch_bounds(self, rank: int, window: int) -> NDArray[np.int64]:
        """Where each batch of a rank begins in a window, shape (steps + 1,)."""
        return self.deal(window).rows(rank)[1]

    def epoch(self, rank: int, epoch: int, *, shuffle: bool = True) -> Epoch:
        """The order in which a rank goes through its shards in an epoch.

        Shards that have parts of the same blocks come to them at about the same time.
        """
        if shuffle:
            files = np.array(self.files, np.int64)
            when = times(files, run=_rng(self.seed, 0), epoch=_rng(self.seed, 4, epoch))
        shards = []
        for shard in self.shards(rank):
            lines = []
            for owned in self.pieces[shard]:
                if shuffle and len(owned) > 1:
                    order = np.argsort(when[[piece.block for piece in owned]], kind="stable")
                    owned = tuple(owned[place] for place in order.tolist())
                lines.append((owned, ends_of(list(map(len, owned)))))
            shards.append(tuple(lines))
        return Epoch(tuple(shards), self.num_rounds, self.windows_per_round)

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

    def rows(
        self, rank: int, window: int, *, epoch: int, shuffle: bool = True
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where a rank uses the events of its shards in a window, and where its batches begin.

        Returns
        -------
        rows : ndarray of int64, shape (events of the shards,)
            The row of each event, in the order of shards and of their shares; -1 if another rank
            has it.
        bounds : ndarray of int64, shape (steps + 1,)
            The row at which each batch begins.
        """
        by_shard, bounds = self.deal(window).rows(rank)
        if shuffle:
            by_shard = [
                _rng(self.seed, 3, epoch, shard, window).permutation(rows)
                for shard, rows in zip(self.shards(rank), by_shard, strict=True)
            ]
        return np.concatenate(by_shard), bounds


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
        Most events that all ranks together hold as dense rows at once.
    seed : int
        Seed of every order.
    files : sequence, optional
        For each block what tells its file from others of its sample; by default all blocks of a
        sample are of one.

    Returns
    -------
    Assignment
        Every event in exactly one shard; each shard has ⌊n/shards⌋ or ⌈n/shards⌉ events of a
        sample. Its epochs have one round.
    """
    by_sample: dict[str, list[int]] = {}
    for block, (sample, num_events) in enumerate(sizes):
        if num_events:
            by_sample.setdefault(sample, []).append(block)
    names = [(sample, files[block] if files else None) for block, (sample, _) in enumerate(sizes)]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    file_of = tuple(numbers[name] for name in names)
    order, shard_of = in_turn(np.array(file_of, np.int64), run=_rng(seed, 0))
    shards = np.empty_like(order)
    shards[order] = shard_of
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    pieces: list[list[tuple[Piece, ...]]] = [[] for _ in range(SHARDS)]
    for sample in sorted(by_sample):
        blocks = np.array(sorted(by_sample[sample], key=place.__getitem__))
        of_file = np.array(file_of)[blocks]
        names_of_files, nums = np.unique(of_file, return_counts=True)
        small = names_of_files[nums < SHARDS]
        # Larger files have whole blocks for every shard: a block that is cut may be read twice.
        if len(blocks) + len(small) * SHARDS > MAX_PIECES // len(by_sample):
            small = small[:0]
        large = ~np.isin(of_file, small)
        owned: list[list[Piece]] = [[] for _ in range(SHARDS)]
        for block in blocks[large].tolist():
            owned[shards[block]].append(Piece(block, 0, sizes[block][1]))
        total = sum(map(len, chain.from_iterable(owned)))
        balance(owned, [_fair(total, shard) for shard in range(SHARDS)])
        turn = total % SHARDS
        for file in small.tolist():
            numbered = blocks[of_file == file].tolist()
            ends = ends_of([sizes[block][1] for block in numbered])
            total, low = int(ends[-1]), 0
            for shard in range(SHARDS):  # those that get one more are others in every file
                high = low + _fair(total, shard - turn)
                cut = between(ends, low, high)
                owned[shard] += [Piece(numbered[i], start, stop) for i, start, stop in cut]
                low = high
            turn += total % SHARDS
        for shard in range(SHARDS):
            pieces[shard].append(tuple(owned[shard]))
    return Assignment(
        tuple(map(tuple, pieces)), ranks, max(window_events, 1), batch_size, seed, file_of, rounds=1
    )


def follow(
    leader: Assignment,
    led: Sequence[tuple[str, int]],
    sizes: Sequence[tuple[str, int]],
    *,
    window_events: int,
) -> Assignment:
    """Assign the events of another split to the shards that have their blocks already.

    Parameters
    ----------
    leader : Assignment
        Of the split that the ranks use first.
    led, sizes : sequence of (sample, events)
        For each block the sample's name and the number of its events, in the leader's split and
        in this one.
    window_events : int
        Most events that all ranks together hold as dense rows at once.

    Returns
    -------
    Assignment
        Every event in exactly one shard. Those of a block are divided as the leader's are; blocks
        of which the leader has no event go to the shards in turn.
    """
    pieces = []
    for shard in range(SHARDS):
        groups = []
        for sample in leader.pieces[shard]:
            owned = []
            for piece in sample:
                size, total = sizes[piece.block][1], led[piece.block][1]
                start, stop = size * piece.start // total, size * piece.stop // total
                if start < stop:
                    owned.append(Piece(piece.block, start, stop))
            groups.append(tuple(owned))
        rest = range(shard, len(sizes), SHARDS)
        alone = [n for n in rest if sizes[n][1] and not led[n][1]]
        groups.append(tuple(Piece(n, 0, sizes[n][1]) for n in alone))
        pieces.append(tuple(groups))
    return replace(leader, pieces=tuple(pieces), window_events=max(window_events, 1), rounds=None)


def balance(owned: list[list[Piece]], fair: Sequence[int]) -> None:
    """Move pieces, or parts of them, until every shard has its fair number of events."""
    spare: list[Piece] = []
    excess = [sum(map(len, pieces)) - num for pieces, num in zip(owned, fair, strict=True)]
    for pieces, num in zip(owned, excess, strict=True):
        while num > 0:
            piece = pieces.pop()
            stop = max(piece.stop - num, piece.start)
            spare.append(Piece(piece.block, stop, piece.stop))
            num -= len(spare[-1])
            if stop > piece.start:
                pieces.append(Piece(piece.block, piece.start, stop))
    for pieces, num in zip(owned, excess, strict=True):
        while num < 0:
            piece = spare.pop()
            stop = min(piece.start - num, piece.stop)
            pieces.append(Piece(piece.block, piece.start, stop))
            num += len(pieces[-1])
            if stop < piece.stop:
                spare.append(Piece(piece.block, stop, piece.stop))


def _fair(total: int, shard: int) -> int:
    """Events of a shard, where the first have one more if need be."""
    return total // SHARDS + (shard % SHARDS < total % SHARDS)


def _dealt(sizes: NDArray[np.int64], place: Any, num_windows: int) -> NDArray[np.int64]:
    """How many of some events the window at a place gets, which are dealt in turn."""
    dealt: NDArray[np.int64] = (sizes - place + num_windows - 1) // num_windows
    return dealt


def _rng(*seeds: int) -> np.random.Generator:
    return np.random.default_rng(list(seeds))
