"""How a window is dealt to batches, and each batch to ranks, so that all ranks see one order.

The events of a split lie in a fixed number of *shards*, whatever the number of ranks. Those of a
window are laid in a line as cards are dealt: one of each shard in turn, until none is left. Batches
are cut from this line, so that which events a batch has does not depend on the ranks. A rank has a
row of shards that follow one another, and all their events in every batch. Where ranks do not
divide shards evenly, two or more have parts of one shard, spread evenly over its events.

Eight shards are a compromise. A rank alone holds blocks of all of them at once, and each is one
more cut through every file; but beyond as many ranks as shards, more ranks hold the same blocks.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

SHARDS = 8
# Of shards that are dealt an event one after the other, any few in a row are of many ranks.
TURNS = (0, 4, 2, 6, 1, 5, 3, 7)
_ONE = 1 << 32  # a whole shard, in which places are whole numbers
_STRIDE = 2654435769  # of _ONE, the golden section: multiples of it fill a shard evenly


def shards_of(rank: int, num_ranks: int) -> range:
    """The shards of which a rank has events."""
    return range(rank * SHARDS // num_ranks, -(-(rank + 1) * SHARDS // num_ranks))


def part_of(rank: int, shard: int, num_ranks: int) -> int:
    """Which part of a shard a rank has, in parts of 1 / ``num_ranks``."""
    low, high = rank * SHARDS, (rank + 1) * SHARDS
    return max(min((shard + 1) * num_ranks, high) - max(shard * num_ranks, low), 0)


class Deal:
    """The events of a window, dealt to batches.

    Parameters
    ----------
    sizes : sequence of int
        By shard: events in the window.
    num_steps : int
        Batches of the window.
    num_ranks : int
        Ranks that take their parts of every batch.
    """

    def __init__(self, sizes: NDArray[np.int64], num_steps: int, num_ranks: int) -> None:
        self._sizes, self._num_steps, self._num_ranks = sizes, num_steps, num_ranks

    @cached_property
    def places(self) -> dict[int, NDArray[np.int64]]:
        """By shard: the places of its events in the line of all."""
        longest = int(self._sizes.max())
        left = np.zeros(longest + 1, np.int64)  # shards that have so many events or more
        np.add.at(left, self._sizes, 1)
        at_turn = SHARDS - np.cumsum(left[:-1])
        begins = np.cumsum(at_turn) - at_turn  # of every turn
        found = {}
        for shard in TURNS:
            size = int(self._sizes[shard])
            found[shard] = begins[:size].copy()
            begins[:size] += 1
        return found

    def rows(self, rank: int) -> tuple[list[NDArray[np.int64]], NDArray[np.int64]]:
        """Where a rank uses the events of its shards in a window, and where its batches begin.

        Returns
        -------
        rows : list, one entry per shard of the rank, of ndarray of int64, shape (events,)
            The row of each event among those of the rank; -1 if another rank has it.
        bounds : ndarray of int64, shape (steps + 1,)
            The row at which each batch begins.
        """
        total = int(self._sizes.sum())
        bounds = cuts(total, self._num_steps)
        shards = shards_of(rank, self._num_ranks)
        rows = [self.places[shard] for shard in shards]
        if self._num_ranks == 1:
            return rows, bounds
        owned = [self._owned(rank, shard) for shard in shards]
        is_own = np.zeros(total + 1, np.int64)
        for places, some in zip(rows, owned, strict=True):
            is_own[places[some] + 1] = 1
        before = np.cumsum(is_own)  # events of the rank before each place
        found = [np.full(len(places), -1) for places in rows]
        for of_shard, places, some in zip(found, rows, owned, strict=True):
            of_shard[some] = before[places[some]]
        return found, before[bounds]

    def _owned(self, rank: int, shard: int) -> slice | NDArray[np.bool_]:
        """Which events of a shard a rank has, as an index."""
        num_ranks = self._num_ranks
        if part_of(rank, shard, num_ranks) == num_ranks:
            return slice(None)
        places = np.arange(self._sizes[shard], dtype=np.int64) * _STRIDE % _ONE
        found: NDArray[np.bool_] = (shard * _ONE + places) * num_ranks // (SHARDS * _ONE) == rank
        return found


def cuts(size: int, num_parts: int) -> NDArray[np.int64]:
    """Where each of some parts of a line begins, all as equal as can be; shape (parts + 1,)."""
    return np.arange(num_parts + 1, dtype=np.int64) * size // max(num_parts, 1)
