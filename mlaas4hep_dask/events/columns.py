"""Columns of any origin become events with the branches, and the dtypes, of a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlaas4hep_dask.errors import EventError, did_you_mean
from mlaas4hep_dask.events.events import Branch, Events


def fitted(events: Events, branches: Sequence[Branch], *, first: int = 0) -> Events:
    """The events with the given branches alone, in the dtypes that their values have in a file.

    Parameters
    ----------
    events : Events
        Events with at least these branches, whatever their dtypes and collections.
    branches : sequence of Branch
        Branches to take. NaN stands for a missing value, also in a branch of whole numbers, which
        then stays float64.
    first : int
        Number of the first event in what a client sent, for errors.

    Raises
    ------
    EventError
        When a branch is missing, flat instead of jagged or the other way round, has other
        multiplicities than its collection, or a value that its dtype does not hold.
    """
    by_name = {branch.name: branch for branch in events.branches}
    contents: dict[str, NDArray[Any]] = {}
    offsets: dict[str, NDArray[np.int64]] = {}
    typed = []
    for branch in branches:
        name = branch.name
        if name not in by_name:
            raise _error(f"it is missing{did_you_mean(name, by_name)}", name)
        if by_name[name].kind != branch.kind:
            raise _error(f"it is {by_name[name].kind}, not {branch.kind}", name)
        starts = None
        if branch.collection is not None:
            starts = events.offsets[str(by_name[name].collection)]
            shared = offsets.setdefault(branch.collection, starts)
            if shared is not starts and not np.array_equal(shared, starts):
                event = int(np.argmin(np.diff(shared) == np.diff(starts)))
                raise _error(
                    f"it has another number of values than others of the collection "
                    f"{branch.collection!r}",
                    name,
                    first + event,
                )
        values = events.contents[name]
        contents[name], is_kept = _cast(values, np.dtype(branch.dtype))
        if not is_kept.all():
            place = int(np.argmin(is_kept))
            event = place if starts is None else int(np.searchsorted(starts, place, "right")) - 1
            problem = f"{values[place]} is no value of {branch.dtype}"
            raise _error(problem, name, first + event)
        typed.append(replace(branch, dtype=contents[name].dtype.name))
    return Events(len(events), tuple(typed), contents, offsets)


def _cast(values: NDArray[Any], dtype: np.dtype[Any]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """The values in a dtype, and whether each is still there but for its last digits."""
    if values.dtype == dtype:
        return values, np.ones(values.shape, dtype=np.bool_)
    with np.errstate(over="ignore", invalid="ignore"):
        cast = values.astype(dtype)
    if dtype.kind == "f":
        return cast, np.isfinite(cast) | ~np.isfinite(values)
    is_missing = np.isnan(values)
    limits = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    is_kept = is_missing | ((cast == values) & (values >= limits[0]) & (values <= limits[1]))
    return values.astype(np.float64) if is_missing.any() else cast, is_kept


def _error(problem: str, branch: str, event: int | None = None) -> EventError:
    where = f"branch {branch!r}" if event is None else f"event {event}, branch {branch!r}"
    return EventError(f"{where}: {problem}", event=event, branch=branch)
