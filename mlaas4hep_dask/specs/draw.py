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
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

SIZE = 4096  # values kept per branch at most: a standard error of 0.8 % in rank
EVERYTHING = 2**64 - 1  # the limit of a draw that left nothing out
NO_CLASS = 255  # of an event whose class is not known

_STEPS = 16  # round numbers between powers of two, which leaves at most 6 % of the room unused
_NUM_ROUND = 61 * _STEPS  # those of 64 bits
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
    class_numbers : ndarray of uint8, shape (drawn,), or None
        The class of the event that each is of, `NO_CLASS` where it is not known; None where no
        class is.
    """

    limit: int = 0
    keys: NDArray[np.uint64] = field(default_factory=lambda: np.zeros(0, np.uint64))
    class_numbers: NDArray[np.uint8] | None = None

    def __len__(self) -> int:
        return self.keys.size

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Draw)
            and self.limit == other.limit
            and np.array_equal(self.keys, other.keys)
            and np.array_equal(self.classes, other.classes)
        )

    __hash__ = None  # type: ignore[assignment]

    @property
    def classes(self) -> NDArray[np.uint8]:
        """The class of each event, `NO_CLASS` where it is not known."""
        return (
            np.full(self.keys.size, NO_CLASS, np.uint8)
            if self.class_numbers is None
            else self.class_numbers
        )

    def of_class(self, number: int | None) -> Draw:
        """The same draw of events that all are of one class, or of none."""
        classes = None if number is None else np.full(self.keys.size, number, np.uint8)
        return Draw(self.limit, self.keys, classes)

    def at(self, places: NDArray[np.intp]) -> Draw:
        """The same draw in another order."""
        return Draw(self.limit, self.keys[places], _at(self.class_numbers, places))


def _at(classes: NDArray[np.uint8] | None, places: NDArray[np.intp]) -> NDArray[np.uint8] | None:
    return None if classes is None else classes[places]


def merge_draws(draws: Sequence[Draw]) -> tuple[Draw, NDArray[np.intp]]:
    """The draw of all, and where its members stand among all members, one draw after another."""
    keys = np.concatenate([draw.keys for draw in draws])
    limit = _common_limit(keys, np.uint64(min(draw.limit for draw in draws)))
    members = np.flatnonzero(keys < limit)
    classes = None
    if any(draw.class_numbers is not None for draw in draws):
        classes = np.concatenate([draw.classes for draw in draws])[members]
    return Draw(int(limit), keys[members], classes), members


def _common_limit(keys: NDArray[np.uint64], limit: np.uint64) -> np.uint64:
    """As `_limit`, of the few keys of draws.

    Without numba, which a client that merges would load and start for this alone, in a second.
    """
    if np.count_nonzero(keys < limit) <= SIZE:
        return limit
    round_number = _round_number.py_func

    def is_low(number: int) -> bool:
        rounded = round_number(number)
        return bool(rounded < limit and np.count_nonzero(keys < rounded) <= SIZE)

    # The first of the numbers that is too high, of which all above are.
    high = bisect_left(range(1, _NUM_ROUND), True, key=lambda number: not is_low(number)) + 1
    rounded: np.uint64 = round_number(high - 1)
    return rounded


def draw_events(keys: NDArray[np.uint64]) -> tuple[Draw, NDArray[np.intp]]:
    """The draw of events with the given keys, and the drawn events, ascending.

    Parameters
    ----------
    keys : ndarray of uint64, shape (events,)
        From `event_keys`.
    """
    limit, drawn_keys, places = _draw_events(keys)
    return Draw(limit, drawn_keys), places


def draw_objects(
    keys: NDArray[np.uint64], offsets: NDArray[np.int64]
) -> tuple[Draw, NDArray[np.intp], NDArray[np.int64]]:
    """The draw of a collection's objects, the drawn ones, ascending, and events by multiplicity.

    Parameters
    ----------
    keys : ndarray of uint64, shape (events,)
        From `event_keys`.
    offsets : ndarray of int64, shape (events + 1,)
        Where each event's objects begin.
    """
    limit, drawn_keys, places, multiplicities = _draw_objects(keys, offsets)
    return Draw(limit, drawn_keys), places, multiplicities


def event_keys(ids: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Keys, shape (events,), of events with the given ids, shape (events, 2)."""
    keys: NDArray[np.uint64] = _event_keys(np.ascontiguousarray(ids))
    return keys


def entry_keys(file_id: int, entry_start: int, entry_stop: int) -> NDArray[np.uint64]:
    """Keys, shape (events,), of the entries [entry_start, entry_stop) of a file."""
    keys: NDArray[np.uint64] = _entry_keys(np.uint64(file_id), entry_start, entry_stop)
    return keys


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def events_of(places: NDArray[np.intp], offsets: NDArray[np.int64]) -> NDArray[np.intp]:
    """The events, shape (drawn,), of the objects at ascending places."""
    events = np.empty(places.size, dtype=np.intp)
    event = 0
    for i in range(places.size):
        while offsets[event + 1] <= places[i]:
            event += 1
        events[i] = event
    return events


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _mix(z: np.uint64) -> np.uint64:
    """The mixing function of splitmix64 (Steele, Lea and Flood, OOPSLA 2014)."""
    z = z + _STEP
    z = (z ^ (z >> np.uint64(30))) * _FIRST
    z = (z ^ (z >> np.uint64(27))) * _SECOND
    return z ^ (z >> np.uint64(31))


# Indices are unsigned below where that matters, lest numba look for negative ones.
@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _event_keys(ids: NDArray[np.uint64]) -> NDArray[np.uint64]:
    keys = np.empty(ids.shape[0], dtype=np.uint64)
    for event in range(keys.size):
        keys[event] = _mix(ids[event, 1] ^ _mix(ids[event, 0] ^ _SALT))
    return keys


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _entry_keys(file_id: np.uint64, start: int, stop: int) -> NDArray[np.uint64]:
    keys = np.empty(stop - start, dtype=np.uint64)
    mixed = _mix(file_id ^ _SALT)
    for event in range(keys.size):
        keys[event] = _mix(np.uint64(start + event) ^ mixed)
    return keys


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _share(num_values: int) -> float:
    """The fraction of the keys to look at: hardly ever too few for a draw."""
    return (SIZE + 8.0 * math.sqrt(SIZE)) / max(num_values, 1)


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _draw_events(
    keys: NDArray[np.uint64],
) -> tuple[np.uint64, NDArray[np.uint64], NDArray[np.intp]]:
    share = _share(keys.size)
    if share < 1.0:
        places = _below(keys, np.uint64(share * EVERYTHING))
        if places.size > SIZE:
            limit, drawn_keys, members = _members(keys[places], np.uint64(EVERYTHING))
            return limit, drawn_keys, places[members]
    limit, drawn_keys, places = _members(keys, np.uint64(EVERYTHING))
    return limit, drawn_keys, places


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _draw_objects(
    keys: NDArray[np.uint64], offsets: NDArray[np.int64]
) -> tuple[np.uint64, NDArray[np.uint64], NDArray[np.intp], NDArray[np.int64]]:
    num_objects = offsets[-1]
    share = _share(num_objects)
    while True:
        room, below = num_objects, np.uint64(EVERYTHING)
        if share < 1.0:
            room, below = min(room, 2 * int(share * room)), np.uint64(share * EVERYTHING)
        candidates = np.empty(room, dtype=np.uint64)
        places = np.empty(room, dtype=np.intp)
        num_candidates, multiplicities = _keys_below(keys, offsets, below, candidates, places)
        if share >= 1.0 or SIZE < num_candidates <= room:
            break
        share = 1.0 if num_candidates > room else 2.0 * share
    limit, drawn_keys, members = _members(candidates[:num_candidates], np.uint64(EVERYTHING))
    return limit, drawn_keys, places[members], multiplicities


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _below(keys: NDArray[np.uint64], limit: np.uint64) -> NDArray[np.intp]:
    """Where the keys below a limit stand, ascending."""
    places = np.empty(keys.size, dtype=np.intp)
    num = np.uint64(0)
    for place in range(keys.size):
        places[num] = place  # written first and counted then: nothing to guess for the processor
        num += np.uint64(keys[place] < limit)
    return places[:num].copy()


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _members(
    keys: NDArray[np.uint64], limit: np.uint64
) -> tuple[np.uint64, NDArray[np.uint64], NDArray[np.intp]]:
    lowered = _limit(keys, limit)
    members = _below(keys, lowered)
    return lowered, keys[members], members


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _limit(keys: NDArray[np.uint64], limit: np.uint64) -> np.uint64:
    """The largest round number with at most SIZE keys below; the limit if these are no more."""
    if _num_below(keys, limit) <= SIZE:
        return limit
    low, high = 0, _NUM_ROUND  # by bisection: enough are below the one, too many below the other
    while high - low > 1:
        middle = (low + high) // 2
        number = _round_number(middle)
        if number < limit and _num_below(keys, number) <= SIZE:
            low = middle
        else:
            high = middle
    rounded: np.uint64 = _round_number(low)
    return rounded


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _num_below(keys: NDArray[np.uint64], limit: np.uint64) -> int:
    num = 0
    for place in range(keys.size):
        num += keys[place] < limit
    return num


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _round_number(number: int) -> np.uint64:
    """The round numbers, ascending from 0."""
    octave, step = number // _STEPS, number % _STEPS
    if octave == 0:
        return np.uint64(step)
    return np.uint64(_STEPS + step) << np.uint64(octave - 1)


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _keys_below(
    keys: NDArray[np.uint64],
    offsets: NDArray[np.int64],
    below: np.uint64,
    candidates: NDArray[np.uint64],
    places: NDArray[np.intp],
) -> tuple[int, NDArray[np.int64]]:
    """Number of objects with keys up to ``below``, and events by multiplicity.

    The first of the objects go into ``found`` and ``places``. The key of an object is that of its
    event plus a constant for its number in the event: a multiple of 2**52, so that the upper 12
    bits of an event's key tell the first number that can lie below. Most events are done with
    after one look.
    """
    num_bins = 0  # of multiplicities; none without events
    for event in range(keys.size):
        num_bins = max(num_bins, offsets[event + 1] - offsets[event] + 1)
    widest = min(max(num_bins - 1, 0), _BINS)
    first, second = _first_numbers(widest, np.int64(below >> _SHIFT) + 1)
    frequencies = np.zeros(
        (2, num_bins), dtype=np.int64
    )  # neighbours go apart, lest one await another
    events = np.empty(keys.size, dtype=np.uint32)
    num_events = np.uint64(0)
    for event in range(keys.size):
        events[num_events] = event
        count = offsets[event + 1] - offsets[event]
        frequencies[event % 2, np.uint64(count)] += 1
        num_events += np.uint64(first[keys[event] >> _SHIFT] < count)
    num_candidates = 0
    for event in events[:num_events]:
        start, stop = offsets[event], offsets[event + np.uint64(1)]
        bins = keys[event] >> _SHIFT
        last = stop if start + second[bins] < stop else start + first[bins] + 1
        for place in range(start + first[bins], last):  # nearly always just one
            steps = np.uint64((place - start) * _STRIDE % _BINS)
            key = keys[event] + (steps << _SHIFT)
            if num_candidates < candidates.size:
                candidates[num_candidates] = key
                places[num_candidates] = place
            num_candidates += key <= below
    return num_candidates, frequencies[0] + frequencies[1]


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _first_numbers(widest: int, num_bins: int) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    """By the upper bits of an event's key: numbers of the first two objects that may be drawn.

    They are ``widest`` where there are none. Drawn are keys in the first ``num_bins``.
    """
    first = np.full(_BINS, widest, dtype=np.int16)
    second = first.copy()
    for number in range(widest - 1, -1, -1):
        start = _BINS - (number * _STRIDE) % _BINS
        for place in range(start, start + num_bins):
            bins = np.uint64(place % _BINS)
            first[bins], second[bins] = number, first[bins]
    return first, second


def to_text(values: NDArray[Any]) -> str:
    """The bytes of an array, little-endian, in base64."""
    little = values.astype(values.dtype.newbyteorder("<"), copy=False)
    return base64.b64encode(little.tobytes()).decode("ascii")


def from_text(text: str, dtype: str) -> NDArray[Any]:
    """The array that `to_text` wrote; ValueError or TypeError when it is none."""
    raw = np.frombuffer(base64.b64decode(text, validate=True), np.dtype(dtype).newbyteorder("<"))
    return raw.astype(dtype)
