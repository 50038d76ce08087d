"""Events with a branch more, with fewer branches, fewer objects or fewer events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlaas4hep_dask.derive.expression import Value
from mlaas4hep_dask.events.events import Branch, Events, offsets_of
from mlaas4hep_dask.events.runs import FEW, Copy, copy_of, copy_of_runs, runs_of


def with_branch(events: Events, name: str, value: Value) -> Events:
    """The events with one more branch."""
    is_flat = value.collection is None
    branch = Branch(
        name, "flat" if is_flat else "jagged", value.values.dtype.name, value.collection
    )
    offsets = dict(events.offsets)
    if value.collection is not None and value.offsets is not None:
        offsets.setdefault(value.collection, value.offsets)
    contents = {**events.contents, name: value.values}
    return Events(events.num_events, (*events.branches, branch), contents, offsets)


def only(events: Events, names: Sequence[str]) -> Events:
    """The events with the named branches alone, in that order."""
    by_name = {branch.name: branch for branch in events.branches}
    branches = tuple(by_name[name] for name in names)
    collections = {branch.collection for branch in branches}
    return Events(
        events.num_events,
        branches,
        {name: events.contents[name] for name in names},
        {name: offsets for name, offsets in events.offsets.items() if name in collections},
    )


def chosen_objects(
    events: Events, masks: Mapping[str, NDArray[np.bool_]], counters: Mapping[str, str]
) -> Events:
    """The events with the objects where the mask of their collection is True.

    Parameters
    ----------
    events : Events
        Events.
    masks : mapping of str to ndarray of bool, shape (objects,)
        By collection.
    counters : mapping of str to str
        The collection whose objects a flat branch counts; it becomes their number.
    """
    offsets = dict(events.offsets)
    multiplicities: dict[str, NDArray[np.int64]] = {}
    for collection, mask in masks.items():
        # objects kept before each one, so that an event's are a difference
        before = offsets_of(mask)
        offsets[collection] = before[events.offsets[collection]]
        multiplicities[collection] = np.diff(offsets[collection])
    contents: dict[str, NDArray[Any]] = dict(events.contents)
    copies = {collection: copy_of(mask) for collection, mask in masks.items()}
    for branch in events.branches:
        if branch.collection is not None and branch.collection in copies:
            contents[branch.name] = copies[branch.collection](contents[branch.name])
        elif counters.get(branch.name) in multiplicities:
            contents[branch.name] = multiplicities[counters[branch.name]].astype(branch.dtype)
    return replace(events, contents=contents, offsets=offsets)


def chosen_events(events: Events, selected: NDArray[np.bool_]) -> Events:
    """The events where ``selected`` is True."""
    first, last = runs_of(selected)
    copies: dict[str | None, Copy] = {None: copy_of(selected)}
    offsets = {}
    for collection, starts in events.offsets.items():
        multiplicities = np.diff(starts)
        copies[collection] = (
            copy_of(np.repeat(selected, multiplicities))
            if starts[-1] <= FEW
            else copy_of_runs(starts[first], starts[last])
        )
        offsets[collection] = offsets_of(multiplicities[selected])
    contents = {
        branch.name: copies[branch.collection](events.contents[branch.name])
        for branch in events.branches
    }
    return Events(int(np.count_nonzero(selected)), events.branches, contents, offsets)
