"""Lengths of arrays that belong together, compared where they cross from room to room.

Compiled kernels do not look: an array that is shorter than the others gives them bytes of other
memory, or ends the process.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlaas4hep_dask.errors import DataError


def require_length(what: str, array: NDArray[Any], expected: int) -> None:
    """Raise a DataError unless the first axis of an array has the expected length."""
    if not array.ndim or len(array) != expected:
        raise disagreement(what, array.shape, (expected, *array.shape[1:]))


def require_offsets(what: str, offsets: NDArray[Any], num_events: int) -> None:
    """Raise a DataError unless these are offsets of so many events: from 0 on, never less."""
    if offsets.shape != (num_events + 1,):
        raise disagreement(what, offsets.shape, (num_events + 1,))
    if offsets[0] != 0 or (offsets[1:] < offsets[:-1]).any():
        falls = np.flatnonzero(offsets[1:] < offsets[:-1])
        place = int(falls[0]) if falls.size else 0
        values = f"{offsets[0]}" if not falls.size else f"{offsets[place]}, {offsets[place + 1]}"
        raise DataError(
            f"{what}: offsets {values} at event {place}; expected them to begin with 0 and not to "
            "become less",
            event=place,
        )


def disagreement(what: str, actual: tuple[int, ...], expected: tuple[int, ...]) -> DataError:
    """The error for an array of another shape than those that it belongs to."""
    return DataError(f"{what}: an array of shape {actual}, expected {expected}", shape=actual)
