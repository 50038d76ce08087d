"""Copies what a selection leaves, run by run: one pass over memory, whatever the dtype."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

FEW = 8_192  # values, below which NumPy is as fast, and a process need not load its compiler

Copy = Callable[[NDArray[Any]], NDArray[Any]]


def copy_of(mask: NDArray[np.bool_]) -> Copy:
    """A function that copies the values of an array where ``mask`` is True."""
    if mask.size <= FEW:
        return lambda values: values[mask]
    return copy_of_runs(*runs_of(mask))


def copy_of_runs(starts: NDArray[np.int64], stops: NDArray[np.int64]) -> Copy:
    """A function that copies the values in half-open ranges, one after the other."""
    return lambda values: copied(values, starts, stops)


def runs_of(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where each run of True begins and ends."""
    edges = np.zeros(mask.size + 2, dtype=np.int8)
    edges[1:-1] = mask
    places = np.flatnonzero(np.diff(edges)).astype(np.int64)
    return places[::2], places[1::2]


def copied(
    values: NDArray[Any],
    starts: NDArray[np.int64],
    stops: NDArray[np.int64],
    out: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """The values in the half-open ranges from ``starts`` to ``stops``, one after the other.

    They are written to ``out``, which has room for just as many of the same dtype, if it is given.
    """
    if out is None:
        out = np.empty(int((stops - starts).sum()), dtype=values.dtype)
    word = f"u{values.itemsize}"  # a kernel for each size, not for each dtype
    _copy(np.ascontiguousarray(values).view(word), starts, stops, out.view(word))
    return out


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _copy(
    values: NDArray[Any], starts: NDArray[np.int64], stops: NDArray[np.int64], out: NDArray[Any]
) -> None:
    place = np.uint64(0)  # unsigned, lest numba look for negative ones
    for run in range(starts.size):
        for i in range(np.uint64(starts[run]), np.uint64(stops[run])):
            out[place] = values[i]
            place += np.uint64(1)
