"""The plan of a file with the branches of a friend tree, if the two can be joined."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mlaas4hep_dask.catalog.locations import FriendFiles
from mlaas4hep_dask.errors import DataError, did_you_mean
from mlaas4hep_dask.events.events import Branch
from mlaas4hep_dask.reader.fileplan import FilePlan
from mlaas4hep_dask.reader.joins import HEAD, joined
from mlaas4hep_dask.reader.partition import Friend, FriendFile
from mlaas4hep_dask.reader.read import read


def befriended(file_plan: FilePlan, friend: FriendFiles, plans: Sequence[FilePlan]) -> FilePlan:
    """The plan of a file, with the branches of a friend tree, of whose files ``plans`` are.

    Raises
    ------
    DataError
        When the two cannot be joined.
    """
    first = plans[0]
    _require_friend(file_plan, friend, plans)
    new: dict[str, Branch] = {}
    left_out = dict(file_plan.left_out)
    for name, branch in first.branches.items():
        full_name = f"{friend.prefix}{name}"
        if name in friend.by:
            continue  # the same values as in the tree
        if full_name in file_plan.branches or full_name in file_plan.left_out:
            left_out[f"{first.tree}: {full_name}"] = (
                "of a friend tree, and the name is taken: prefix can tell it apart"
            )
            continue
        collection = None if branch.collection is None else f"{first.tree}.{branch.collection}"
        new[full_name] = replace(branch, name=full_name, collection=collection)
    friend_tree = f"tree {first.tree!r} in {first.file}, a friend tree"
    left_out |= {
        f"{friend.prefix}{name}": f"{why} of {friend_tree}" if name in first.filled else why
        for name, why in first.left_out.items()
        if f"{friend.prefix}{name}" not in file_plan.branches
    }
    made_friend = Friend(
        tuple(FriendFile(each.file, each.uuid, each.stamp, each.num_entries) for each in plans),
        first.tree,
        tuple((n, file_plan.branches[n].dtype, first.branches[n].dtype) for n in friend.by),
        friend.prefix,
        frozenset(new),
    )
    branches = {**file_plan.branches, **new}
    file_plan = replace(
        file_plan,
        branches=branches,
        left_out=left_out,
        friends=(*file_plan.friends, made_friend),
        bytes_per_event={
            **file_plan.bytes_per_event,
            **{
                name: first.bytes_per_event.get(name.removeprefix(friend.prefix), 8.0)
                for name in new
            },
        },
        counters={
            **file_plan.counters,
            **{
                f"{friend.prefix}{name}": f"{friend.prefix}{member}"
                for name, member in first.counters.items()
                if {f"{friend.prefix}{each}" for each in (name, member)} <= {*new}
            },
        },
        late=file_plan.late
        | {each for each in new if each.removeprefix(friend.prefix) in first.late},
        filled={
            **file_plan.filled,
            **{f"{friend.prefix}{name}": number for name, number in first.filled.items()},
        },
    )

    def head(names: list[str]) -> dict[str, NDArray[np.int64]]:
        asked_for = [branches[name] for name in names]
        part = file_plan.planned([]).partition(0, min(HEAD, file_plan.num_entries))
        offsets = read(part, asked_for).offsets
        return {branch.name: offsets[str(branch.collection)] for branch in asked_for}

    agreed = joined(branches, file_plan.access.collections, head)
    return replace(
        file_plan,
        branches=agreed.branches,
        vague=file_plan.vague | first.vague | agreed.vague,
        unlike={**file_plan.unlike, **agreed.unlike},
        joined=file_plan.joined | agreed.moved,
    )


def _require_friend(file_plan: FilePlan, friend: FriendFiles, plans: Sequence[FilePlan]) -> None:
    """Raise a DataError unless the trees of ``plans`` can be friends of a file's tree."""
    first = plans[0]
    for each in plans:
        if each.lines:
            raise DataError(f"a text cannot be a friend: {each.file}", file=each.file)
        for name in friend.by:
            for of in (file_plan, each):
                branch = of.branches.get(name)
                if (
                    branch is None
                    or branch.kind != "flat"
                    or np.dtype(branch.dtype).kind not in "iu"
                ):
                    state = of.left_out.get(name, "missing")
                    state = state if branch is None else branch.described()
                    raise DataError.in_tree(
                        of,
                        f"branch {name!r}, by which events are joined, is {state} in tree "
                        f"{of.tree!r} of {of.file}, expected a whole number for each event"
                        f"{did_you_mean(name, of.branches) if branch is None else ''}",
                        branch=name,
                    )
        for name, branch in first.branches.items():
            theirs = each.branches.get(name)
            if theirs is None or not branch.same_shape(theirs):
                raise DataError.in_tree(
                    each,
                    f"branch {name!r} is {'missing' if theirs is None else theirs.described()} in "
                    f"friend tree {each.tree!r} of {each.file}; it is {branch.described()} in "
                    f"{first.file}",
                    branch=name,
                )
    if not friend.by and first.num_entries != file_plan.num_entries:
        raise DataError.in_tree(
            first,
            f"friend tree {first.tree!r} of {first.file} has {first.num_entries} entries, and tree "
            f"{file_plan.tree!r} of {file_plan.file} has {file_plan.num_entries}: joined by entry, "
            "both have as many; 'by: [run, event]' joins by branches that identify an event",
        )
