"""Values drawn by a hash of their place in the data; quantiles of a whole data set rest on them.

Every value has a key: a hash of file, entry and place in the event. The values with the smallest
keys are a uniform draw without replacement. Which those are depends on the data alone: draws of
parts merge, in any order, into exactly the draw of the whole. Sketches such as KLL need less room
for the same error, but toss coins: two passes over the same files differ, and so would encodings.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlaas4hep_dask.compiled import numba

SIZE = 4096  # values kept per branch: a standard error of at most 0.8 % in rank
EVERYTHING = 2**64 - 1  # the limit of a draw that left nothing out

_STEP = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)
_SHIFT = np.uint64(52)
_BINS = 4096  # 2 ** (64 - 52)
_STRIDE = 2531  # odd, near 4096 over the golden ratio: keys within an event stand far apart
_SALT = np.uint64(0x51AFD7ED558CCD6D)  # another hash than that of the split


@dataclass(frozen=True, eq=False)
class Draw:
    """Which values of a group of branches were drawn.

    Parameters
    ----------
    limit : int
        All values with smaller keys are in the draw, and no others; 0 when nothing is known.
    keys : ndarray of uint64, shape (drawn,)
        Ascending.
    """

    limit: int = 0
    keys: NDArray[np.uint64] = field(default_factory=lambda: np.zeros(0, np.uint64))

    def __len__(self) -> int:
        return self.keys.size

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Draw)
            and self.limit == other.limit
            and np.array_equal(self.keys, other.keys)
        )

    __hash__ = None  # type: ignore[assignment]


def merge_draws(draws: Sequence[Draw]) -> tuple[Draw, NDArray[np.intp]]:
    """The draw of all, and where its members stand among all members, one draw after another."""
    keys = np.concatenate([draw.keys for draw in draws])
    limit = min(draw.limit for draw in draws)
    order = np.arange(keys.size)
    if keys.size > SIZE:  # what lies beyond need not be sorted
        order = np.flatnonzero(keys <= np.partition(keys, SIZE)[SIZE])
    order = order[np.argsort(keys[order], kind="stable")]
    limit, num_kept = _cut(keys[order], limit)
    order = order[:num_kept]
    return Draw(limit, keys[order]), order


def _cut(ascending: NDArray[np.uint64], limit: int) -> tuple[int, int]:
    """Limit and number of members, given all keys that may be members."""
    num_below = int(np.searchsorted(ascending, np.uint64(limit)))
    if num_below > SIZE:
        limit = int(ascending[SIZE])
        num_below = int(np.searchsorted(ascending, ascending[SIZE]))  # equal keys go together
    return limit, num_below


def draw_events(keys: NDArray[np.uint64]) -> tuple[Draw, NDArray[np.intp]]:
    """The draw of events with the given keys, and the drawn events.

    Parameters
    ----------
    keys : ndarray of uint64, shape (events,)
        From `event_keys`.
    """
    return _draw(keys, np.arange(keys.size + 1), objects=keys.size, widest=1)


def draw_objects(
    keys: NDArray[np.uint64], offsets: NDArray[np.int64], *, widest: int
) -> tuple[Draw, NDArray[np.intp]]:
    """The draw of a collection's objects, and the drawn objects.

    Parameters
    ----------
    keys : ndarray of uint64, shape (events,)
        From `event_keys`.
    offsets : ndarray of int64, shape (events + 1,)
        Where each event's objects begin.
    widest : int
        Most objects of an event.
    """
    return _draw(keys, offsets, objects=int(offsets[-1]), widest=widest)


def _draw(
    keys: NDArray[np.uint64], offsets: NDArray[np.int64], *, objects: int, widest: int
) -> tuple[Draw, NDArray[np.intp]]:
    # Aimed a little above SIZE, so that a second go is hardly ever needed.
    share = (SIZE + 8.0 * SIZE**0.5) / max(objects, 1)
    while True:
        below = EVERYTHING if share >= 1.0 else int(share * EVERYTHING)
        room = objects if share >= 1.0 else min(objects, 2 * int(share * objects))
        found = np.empty(room, dtype=np.uint64)
        places = np.empty(room, dtype=np.intp)
        num_found = _keys_below(keys, offsets, widest, np.uint64(below), found, places)
        if share >= 1.0 or SIZE < num_found <= room:
            break
        share = 1.0 if num_found > room else 2.0 * share
    found, places = found[:num_found], places[:num_found]
    order = np.argsort(found)
    limit, num_kept = _cut(found[order], EVERYTHING)
    order = order[:num_kept]
    return Draw(limit, found[order]), places[order]


def event_keys(ids: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Keys, shape (events,), of events with the given ids, shape (events, 2)."""
    keys: NDArray[np.uint64] = _event_keys(np.ascontiguousarray(ids))
    return keys


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _mix(z: np.uint64) -> np.uint64:
    """The mixing function of splitmix64 (Steele, Lea and Flood, OOPSLA 2014)."""
    z = z + _STEP
    z = (z ^ (z >> np.uint64(30))) * _FIRST
    z = (z ^ (z >> np.uint64(27))) * _SECOND
    return z ^ (z >> np.uint64(31))


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _event_keys(ids: NDArray[np.uint64]) -> NDArray[np.uint64]:
    keys = np.empty(ids.shape[0], dtype=np.uint64)
    for event in range(keys.size):
        keys[event] = _mix(ids[event, 1] ^ _mix(ids[event, 0] ^ _SALT))
    return keys


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _keys_below(
    keys: NDArray[np.uint64],
    offsets: NDArray[np.int64],
    widest: int,
    below: np.uint64,
    found: NDArray[np.uint64],
    places: NDArray[np.intp],
) -> int:
    """Number of objects with keys up to ``below``; the first of them go into the last two.

    The key of an object is that of its event plus a constant for its number in the event: a
    multiple of 2**52, so that the upper 12 bits of an event's key tell the first number that
    can lie below. Most events are done with after one look.
    """
    first = np.full(_BINS, widest, dtype=np.int64)
    num_bins = np.int64(below >> _SHIFT) + 1
    for number in range(min(widest, _BINS) - 1, -1, -1):
        start = _BINS - (number * _STRIDE) % _BINS
        for place in range(start, start + num_bins):
            first[place % _BINS] = number
    num_found = 0
    for event in range(keys.size):
        start, stop = offsets[event], offsets[event + 1]
        for place in range(start + first[np.int64(keys[event] >> _SHIFT)], stop):
            bins = np.uint64((place - start) * _STRIDE % _BINS)
            key = keys[event] + (bins << _SHIFT)
            if key <= below:
                if num_found < found.size:
                    found[num_found] = key
                    places[num_found] = place
                num_found += 1
    return num_found


def to_text(values: NDArray[Any]) -> str:
    """The bytes of an array, little-endian, in base64."""
    little = values.astype(values.dtype.newbyteorder("<"), copy=False)
    return base64.b64encode(little.tobytes()).decode("ascii")


def from_text(text: str, dtype: str) -> NDArray[Any]:
    """The array that `to_text` wrote; ValueError or TypeError when it is none."""
    stored = np.frombuffer(base64.b64decode(text, validate=True), np.dtype(dtype).newbyteorder("<"))
    return stored.astype(dtype)
