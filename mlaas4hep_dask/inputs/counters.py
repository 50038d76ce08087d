"""Which branches count the objects of collections."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from mlaas4hep_dask.errors import UnreadableFileError
from mlaas4hep_dask.inputs.preflight import Preflight
from mlaas4hep_dask.inputs.prepare import first_events
from mlaas4hep_dask.reader import read
from mlaas4hep_dask.reader.access import is_remote


def counting_notes(checked: Preflight) -> list[str]:
    """Warnings of branches that seem to count objects, though no file says so.

    Beside vectors a tree often has a plain number that counts them. Only a file's counters follow
    cuts, for a number may be that of the objects in some events by chance. A remote file would be
    read twice: nothing is said of it.
    """
    cut = checked.recipe.steps(checked.context.preparation.keep).collections
    telling = checked.recipe.collections_of(
        checked.supervision.target_names, checked.supervision.counted
    )
    if checked.traced is not None or not {*cut, *telling} or is_remote(checked.reference.file):
        return []
    try:
        found = list(_alike(checked, {*cut, *telling}))
    except UnreadableFileError:  # which is told elsewhere
        return []
    notes = []
    for name, collection, member in found:
        equal = f"{name!r} is the number of objects of {collection!r} in the first events"
        if collection in cut:
            notes.append(
                f"WARNING: {equal}, and keeps its value where objects.{collection} removes some; "
                f"count({member}) is the number of those that are left"
            )
        elif name in checked.selection.inputs:
            notes.append(f"WARNING: the input {equal}, which the target counts")
    return notes


def _alike(checked: Preflight, collections: set[str]) -> Iterator[tuple[str, str, str]]:
    """Whole numbers in use that are the multiplicity, with the collection and a branch of it."""
    branches: Mapping[str, object] = checked.reference.branches
    numbers = [
        branch
        for branch in checked.preparation.reads
        if branch.kind == "flat"
        and np.dtype(branch.dtype).kind in "iu"
        and branch.name in branches
        and branch.name not in checked.recipe.counters
    ]
    members = {
        str(branch.collection): branch
        for branch in checked.reference.branches.values()
        if branch.collection in collections
    }
    if not numbers or not members:
        return
    events = read(first_events(checked.reference), [*numbers, *members.values()])
    for collection, member in members.items():
        multiplicities = np.diff(events.offsets[collection])
        if len(np.unique(multiplicities)) < 2:
            continue  # as many in each event are as many as any constant
        for branch in numbers:
            if np.array_equal(events.contents[branch.name], multiplicities):
                yield branch.name, collection, member.name
