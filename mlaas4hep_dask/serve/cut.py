"""Cuts the JSON of a large request into slices of few values, without reading the values.

A JSON parser holds Python's lock until it is done, and what it makes of a body takes up to thirty
times the body's size. Slices are parsed one by one when their turn comes, so that neither others'
requests nor the memory notice how large a body is.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

# What the kernel returns: how it ended, the number of events, and the byte where it ended.
WHOLE, CUT_SHORT, TOO_MANY_VALUES, TOO_MANY_NAMES, TOO_LONG = range(5)
LIST_WEIGHT = 4  # values that a list or an object counts for: it costs as much


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]  # numba is not annotated
def cut(
    text: NDArray[np.uint8],
    begin: int,
    slice_limits: NDArray[np.int64],
    event_limits: NDArray[np.int64],
    slices: NDArray[np.int64],
) -> tuple[int, int, int, int, int]:
    """How the list of events that begins at a byte ends, and its slices.

    What it finds is right when the text is JSON; whether it is, the parser of the slices says.

    Parameters
    ----------
    text : ndarray of uint8, shape (bytes,)
        A body.
    begin : int
        Byte after the ``[`` of the list.
    slice_limits : ndarray of int64, shape (3,)
        Most events, values and bytes of a slice; one event may have more.
    event_limits : ndarray of int64, shape (3,)
        Most values, names and bytes of an event.
    slices : ndarray of int64, shape (slices, 4)
        Filled with first and last byte, events and values of each slice, as far as it goes.

    Returns
    -------
    tuple of int
        How it ended, number of events, number of slices, number of values, and the byte after
        the list's ``]``.
    """
    events = num_slices = total = depth = 0
    values = 1  # in this event: one, and one for each comma, list, object and name
    names = 0
    is_empty = True
    event_start = slice_start = begin
    slice_end = begin
    slice_events = slice_values = 0
    i = begin
    while i < text.size:
        c = text[i]
        if c == 34:  # a string: to its end
            is_empty = False
            i += 1
            while i < text.size and text[i] != 34:
                i += 2 if text[i] == 92 else 1
        elif c == 91 or c == 123:
            is_empty = False
            depth += 1
            values += LIST_WEIGHT
        elif c == 58:
            is_empty = False
            names += 1
            values += 1
        elif c == 44 and depth > 0:
            values += 1
        elif (c == 93 or c == 125) and depth > 0:
            depth -= 1
        elif c == 44 or c == 93 or c == 125:  # an event's end
            if c == 44 or not is_empty:
                if i - event_start > event_limits[2]:
                    return TOO_LONG, events, num_slices, total, i
                if slice_events and (
                    slice_events + 1 > slice_limits[0]
                    or slice_values + values > slice_limits[1]
                    or i - slice_start > slice_limits[2]
                ):
                    if num_slices < slices.shape[0]:
                        slices[num_slices, 0] = slice_start
                        slices[num_slices, 1] = slice_end
                        slices[num_slices, 2] = slice_events
                        slices[num_slices, 3] = slice_values
                    num_slices += 1
                    slice_start = event_start
                    slice_events = slice_values = 0
                events += 1
                slice_events += 1
                slice_values += values
                total += values
                slice_end = i
                event_start = i + 1
            if c != 44:
                if slice_events:
                    if num_slices < slices.shape[0]:
                        slices[num_slices, 0] = slice_start
                        slices[num_slices, 1] = slice_end
                        slices[num_slices, 2] = slice_events
                        slices[num_slices, 3] = slice_values
                    num_slices += 1
                return WHOLE if c == 93 else CUT_SHORT, events, num_slices, total, i + 1
            is_empty = False
            values = 1
            names = 0
        elif c != 32 and c != 9 and c != 10 and c != 13:
            is_empty = False
        if values > event_limits[0]:
            return TOO_MANY_VALUES, events, num_slices, total, i
        if names > event_limits[1]:
            return TOO_MANY_NAMES, events, num_slices, total, i
        i += 1
    return CUT_SHORT, events, num_slices, total, i


def warm_up() -> None:
    """Compile, or load what was compiled before."""
    text = np.frombuffer(b'{"a": "\\"", "b": [1]}, {}]', dtype=np.uint8)
    few: NDArray[Any] = np.full(3, 10, dtype=np.int64)
    cut(text, 0, few, few, np.empty((4, 4), dtype=np.int64))
