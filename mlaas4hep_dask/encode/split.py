"""Event ids, and the split that follows from them."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray


def file_id(uuid: str) -> int:
    """64 bits that stand for a file's UUID in event ids."""
    return int.from_bytes(hashlib.sha256(uuid.encode()).digest()[:8], "little")


def event_ids(uuid: str, entry_start: int, entry_stop: int) -> NDArray[np.uint64]:
    """Stable ids of the entries [entry_start, entry_stop) of a file, shape (events, 2).

    The first column is `file_id`, the second the entry.
    """
    ids = np.empty((entry_stop - entry_start, 2), dtype=np.uint64)
    ids[:, 0] = file_id(uuid)
    ids[:, 1] = np.arange(entry_start, entry_stop, dtype=np.uint64)
    return ids


def split_of(
    ids: NDArray[np.uint64], fractions: tuple[float, float, float], *, seed: int
) -> NDArray[np.uint8]:
    """Split of each event, shape (events,): 0 for training, 1 for validation, 2 for test.

    It is a hash of the event's id alone, so that it depends neither on partitions nor on the
    order of files nor on the size of a cluster. The mixing function is splitmix64's (Steele, Lea
    and Flood, OOPSLA 2014).
    """
    mixed = _mix(ids[:, 1] ^ _mix(ids[:, 0] ^ _mix(np.full(1, seed, dtype=np.uint64))))
    uniform = (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53
    edges = np.cumsum(fractions)[:2]
    return np.searchsorted(edges, uniform, side="right").astype(np.uint8)


def _mix(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    z = z + np.uint64(0x9E3779B97F4A7C15)  # unsigned arithmetic wraps around
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
