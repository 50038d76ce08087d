"""The order of an epoch: its pieces, its rounds, and how their events are dealt to windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
    shares : sequence of Share
        Of its blocks.
    num_windows : int
        Windows to which the events are dealt.
    """

    def __init__(self, shares: Sequence[Share], num_windows: int) -> None:
        self.shares = shares
        self.num_windows = num_windows
        sizes = np.fromiter(map(len, shares), np.int64, len(shares))
        self._begins = np.cumsum(sizes) - sizes
        self._sizes = sizes

    def window(self, place: int) -> list[tuple[Share, int]]:
        """What the window at a place gets: shares, and the first event that it has of each.

        It has every `num_windows`-th from there on.
        """
        offsets = (place - self._begins) % self.num_windows
        chosen = np.flatnonzero(offsets < self._sizes)
        return [
            (self.shares[share], offset)
            for share, offset in zip(chosen.tolist(), offsets[chosen].tolist(), strict=True)
        ]


@dataclass(frozen=True)
class Epoch:
    """The pieces of a rank in the order of an epoch.

    Parameters
    ----------
    lines : tuple, one entry per sample, of (tuple of Piece, ndarray of int64)
        The pieces, and where each of them ends among the sample's events.
    num_rounds : int
        Rounds of the epoch.
    windows_per_round : int
        Windows to which the events of a round are dealt.
    """

    lines: tuple[tuple[tuple[Piece, ...], NDArray[np.int64]], ...]
    num_rounds: int
    windows_per_round: int

    def round(self, number: int) -> Round:
        """What a rank reads in a round."""
        shares: list[Share] = []
        for owned, ends in self.lines:
            total = int(ends[-1]) if ends.size else 0
            low, high = (part(total, n, self.num_rounds) for n in (number, number + 1))
            shares += [Share(owned[i], start, stop) for i, start, stop in between(ends, low, high)]
        return Round(shares, self.windows_per_round)


def spread(
    files: NDArray[np.int64], keys: NDArray[np.float64], starts: NDArray[np.float64]
) -> NDArray[np.int64]:
    """An order of blocks, each with the number of its file, in which every file is spread evenly.

    ``keys``, one per block, order the blocks of a file; ``starts``, by file, say where the first
    stands.
    """
    by_file = np.lexsort((keys, files))
    _, begins, inverse, sizes = np.unique(
        files[by_file], return_index=True, return_inverse=True, return_counts=True
    )
    number = np.arange(len(files)) - begins[inverse]  # within its file
    place = (number + starts[files[by_file]]) / sizes[inverse]
    return by_file[np.argsort(place, kind="stable")]


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
