"""Order: the objects of each event sorted by a branch of their collection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from mlaas4hep_dask.events import Branch

_RUN = 16  # objects that are sorted by insertion; most events have fewer


@dataclass(frozen=True, slots=True)
class Sort:
    """Objects of a collection are sorted by a branch of it, the smallest value first or last."""

    collection: str
    branch: Branch
    is_descending: bool


@numba.njit(nogil=True, cache=True, inline="always")  # type: ignore[untyped-decorator]  # numba is not annotated
def _precedes(a: Any, b: Any, descending: bool) -> bool:
    if a != a:
        return False
    if b != b:
        return True
    return a > b if descending else a < b  # type: ignore[no-any-return]


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def sort_objects(
    key: NDArray[Any], offsets: NDArray[np.int64], descending: bool
) -> NDArray[np.int64]:
    """Places of the objects of all events in their new order, event by event.

    The sort is stable: objects with equal keys keep their order. NaN comes last, whichever way
    the others are sorted.

    Parameters
    ----------
    key : ndarray, shape (objects,)
        Values to sort by.
    offsets : ndarray of int64, shape (events + 1,)
        Where each event's objects begin.
    descending : bool
        Largest first.

    Returns
    -------
    ndarray of int64, shape (objects,)
        Indices into the contents of the collection's branches.
    """
    order = np.arange(key.size)
    scratch = np.empty_like(order)
    for event in range(offsets.size - 1):
        start, stop = offsets[event], offsets[event + 1]
        for begin in range(start, stop, _RUN):
            for i in range(begin + 1, min(begin + _RUN, stop)):
                moved = order[i]
                j = i
                while j > begin and _precedes(key[moved], key[order[j - 1]], descending):
                    order[j] = order[j - 1]
                    j -= 1
                order[j] = moved
        size = _RUN
        while size < stop - start:  # merge neighbouring runs
            for begin in range(start, stop, 2 * size):
                middle, end = min(begin + size, stop), min(begin + 2 * size, stop)
                a, b = begin, middle
                for k in range(begin, end):
                    if b < end and (
                        a >= middle or _precedes(key[order[b]], key[order[a]], descending)
                    ):
                        scratch[k] = order[b]
                        b += 1
                    else:
                        scratch[k] = order[a]
                        a += 1
            order[start:stop] = scratch[start:stop]
            size *= 2
    return order
