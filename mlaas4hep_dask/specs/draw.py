"""Values drawn by a hash of their place in the data; quantiles of a whole data set rest on them.

Every value has a key: a hash of file, entry and place in the event. The values with keys below a
limit are a uniform draw without replacement. The limit is the largest round number that few enough
keys lie below, so that it depends on the data alone: draws of parts merge, in any order, into
exactly the draw of the whole, and nothing has to be sorted for it. Sketches such as KLL need less
room for the same error, but toss coins: two passes over the same files differ, and so would
encodings.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlaas4hep_dask.compiled import numba

SIZE = 4096  # values kept per branch at most: a standard error of 0.8 % in rank
EVERYTHING = 2**64 - 1  # the limit of a draw that left nothing out

_ROUND = 5  # significant bits of a limit, which leaves at most 6 % of the room unused
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
        In the order of the drawn values.
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
    return _limited(keys, min(draw.limit for draw in draws))


def _limited(keys: NDArray[np.uint64], limit: int) -> tuple[Draw, NDArray[np.intp]]:
    """The draw from some keys, which hold all that are below the limit; and where they stand."""
    members = np.flatnonzero(keys < np.uint64(limit))
    if members.size > SIZE:
        first_out = int(np.partition(keys[members], SIZE)[SIZE])
        bits = max(first_out.bit_length() - _ROUND, 0)
        limit = first_out >> bits << bits
        members = np.flatnonzero(keys < np.uint64(limit))
    return Draw(limit, keys[members]), members


def _share(num_values: int) -> float:
    """The fraction of the keys to look at: hardly ever too few for a draw."""
    return (SIZE + 8.0 * math.sqrt(SIZE)) / max(num_values, 1)


def draw_events(keys: NDArray[np.uint64]) -> tuple[Draw, NDArray[np.intp]]:
    """The draw of events with the given keys, and the drawn events, ascending.

    Parameters
    ----------
    keys : ndarray of uint64, shape (events,)
        From `event_keys`.
    """
    if _share(keys.size) < 1.0:
        below = np.uint64(int(_share(keys.size) * EVERYTHING))
        places = np.flatnonzero(keys < below)
        if places.size > SIZE:
            draw, members = _limited(keys[places], EVERYTHING)
            return draw, places[members]
    return _limited(keys, EVERYTHING)


def draw_objects(
    keys: NDArray[np.uint64], offsets: NDArray[np.int64], *, widest: int
) -> tuple[Draw, NDArray[np.intp]]:
    """The draw of a collection's objects, and the drawn objects, ascending.

    Parameters
    ----------
    keys : ndarray of uint64, shape (events,)
        From `event_keys`.
    offsets : ndarray of int64, shape (events + 1,)
        Where each event's objects begin.
    widest : int
        Most objects of an event.
    """
    num_objects = int(offsets[-1])
    share = _share(num_objects)
    while True:
        below = EVERYTHING if share >= 1.0 else int(share * EVERYTHING)
        room = num_objects if share >= 1.0 else min(num_objects, 2 * int(share * num_objects))
        found = np.empty(room, dtype=np.uint64)
        places = np.empty(room, dtype=np.intp)
        num_found = _keys_below(keys, offsets, widest, np.uint64(below), found, places)
        if share >= 1.0 or SIZE < num_found <= room:
            break
        share = 1.0 if num_found > room else 2.0 * share
    draw, members = _limited(found[:num_found], EVERYTHING)
    return draw, places[members]


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
