"""The order of an epoch: its pieces, its rounds, and how their events are dealt to windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlaas4hep_dask.train.shards import SHARDS, TURNS


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
    """The part of a piece that falls into one round: [start, stop) in the epoch's order of it."""

    piece: Piece
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


class Round:
    """What a rank reads in a round, and how its windows are dealt.

    Parameters
    ----------
    by_shard : sequence of sequence of Share
        Of the blocks of each shard.
    num_windows : int
        Windows to which the events of each shard are dealt.

    Attributes
    ----------
    shares : list of Share
        Those of all shards, one shard after the other.
    """

    def __init__(self, by_shard: Sequence[Sequence[Share]], num_windows: int) -> None:
        self.shares = [share for shares in by_shard for share in shares]
        self.num_windows = num_windows
        self._sizes = np.fromiter(map(len, self.shares), np.int64, len(self.shares))
        begins = np.cumsum(self._sizes) - self._sizes
        nums = np.array([len(shares) for shares in by_shard if shares], np.int64)
        firsts = begins[np.cumsum(nums) - nums]
        self._begins = begins - np.repeat(firsts, nums)  # within the shard
        blocks = [share.piece.block for share in self.shares]
        self._by_block = np.argsort(np.array(blocks, np.int64), kind="stable")

    def window(self, place: int) -> list[tuple[int, int, int, int]]:
        """What the window at a place gets of each share, those of one block in a row.

        These are the share's number, the first of its events that the window has, of which it has
        every `num_windows`-th from there on, how many events the window has in the shares before,
        and how many it has in this one.
        """
        offsets = (place - self._begins) % self.num_windows
        sizes = (self._sizes - offsets + self.num_windows - 1) // self.num_windows
        begins = np.cumsum(sizes) - sizes
        chosen = self._by_block[sizes[self._by_block] > 0]
        columns = (chosen, offsets[chosen], begins[chosen], sizes[chosen])
        return list(zip(*(column.tolist() for column in columns), strict=True))


@dataclass(frozen=True)
class Epoch:
    """The pieces of a rank in the order of an epoch.

    Parameters
    ----------
    shards : tuple, one entry per shard, of tuples, one per sample, of (tuple of Piece, ndarray)
        The pieces, and where each of them ends among the events of the shard and sample.
    num_rounds : int
        Rounds of the epoch.
    windows_per_round : int
        Windows to which the events of a round are dealt.
    """

    shards: tuple[tuple[tuple[tuple[Piece, ...], NDArray[np.int64]], ...], ...]
    num_rounds: int
    windows_per_round: int

    def round(self, number: int) -> Round:
        """What a rank reads in a round."""
        by_shard = []
        for lines in self.shards:
            shares: list[Share] = []
            for owned, ends in lines:
                total = int(ends[-1]) if ends.size else 0
                low, high = (part(total, n, self.num_rounds) for n in (number, number + 1))
                cut = between(ends, low, high)
                shares += [Share(owned[i], start, stop) for i, start, stop in cut]
            by_shard.append(shares)
        return Round(by_shard, self.windows_per_round)


def times(
    files: NDArray[np.int64], *, run: np.random.Generator, epoch: np.random.Generator
) -> NDArray[np.float64]:
    """When each block comes in an epoch, from 0 to 1, so that every file is spread evenly.

    Parameters
    ----------
    files : ndarray of int64, shape (blocks,)
        Number of the file of every block.
    run, epoch : Generator
        Of chance that is the same in all epochs, as for `in_turn`, and of that of this one.
    """
    _, number, size = _within(files, run.random(len(files)))
    is_large = size >= SHARDS
    slot = np.where(is_large, number * SHARDS // size, 0)
    _, number, size = _within(files * SHARDS + slot, epoch.random(len(files)))
    place = (number + epoch.random(int(files.max(initial=0)) + 1)[files]) / size
    # What one shard has of all files in one slot, others have of them in others: as all files have
    # the same order of slots, each shard has equally many blocks in each.
    return np.where(is_large, (epoch.permutation(SHARDS)[slot] + place) / SHARDS, place)


def in_turn(
    files: NDArray[np.int64], *, run: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Blocks in a random order, file by file, and the shard that gets each of them whole."""
    order, _, _ = _within(files, run.random(len(files)))
    ordinal = np.unique(files[order], return_inverse=True)[1]
    return order, np.array(TURNS)[(np.arange(len(files)) + ordinal) % SHARDS]


def _within(
    groups: NDArray[np.int64], keys: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Things by group and key; the place of each within its group, and the size of that."""
    order = np.lexsort((keys, groups))
    _, begins, inverse, sizes = np.unique(
        groups[order], return_index=True, return_inverse=True, return_counts=True
    )
    number, size = np.empty_like(groups), np.empty_like(groups)
    number[order] = np.arange(len(groups)) - begins[inverse]
    size[order] = sizes[inverse]
    return order, number, size


def ends_of(sizes: list[int]) -> NDArray[np.int64]:
    """Where each of some things ends that stand behind one another."""
    return np.cumsum(np.array(sizes, dtype=np.int64))


def between(ends: NDArray[np.int64], low: int, high: int) -> list[tuple[int, int, int]]:
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


def part(total: int, index: int, num_parts: int) -> int:
    """Where a part of a total begins, all as equal as can be."""
    return total * index // num_parts
