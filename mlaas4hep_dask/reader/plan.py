"""Plans one file: what it holds and where it can be cut."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from mlaas4hep_dask.catalog.locations import FriendFiles
from mlaas4hep_dask.events.events import Branch, offsets_of
from mlaas4hep_dask.reader.access import PLAIN, Access, attempt, is_remote
from mlaas4hep_dask.reader.baskets import read_baskets
from mlaas4hep_dask.reader.befriend import befriended
from mlaas4hep_dask.reader.byuproot import multiplicities_of, without_unreadable
from mlaas4hep_dask.reader.fileplan import FilePlan
from mlaas4hep_dask.reader.joins import HEAD, joined
from mlaas4hep_dask.reader.opened import OpenTree, forget, open_data
from mlaas4hep_dask.reader.tables import OpenTable
from mlaas4hep_dask.reader.uncompress import UnsupportedBasketError


def plan_file(
    file: str,
    tree: str,
    sample: str,
    access: Access = PLAIN,
    friends: Sequence[FriendFiles] = (),
) -> FilePlan:
    """Plan of one file; reads its metadata only, or all of a text file to count its lines.

    Parameters
    ----------
    file, tree, sample : str
        The file, the tree in it, and the sample that lists it.
    access : Access
        How it is reached.
    friends : sequence of FriendFiles
        Where more branches of its events are.

    Raises
    ------
    UnreadableFileError
        When the file cannot be opened.
    DataError
        When it holds no such tree, is not a table, or a friend tree has other entries.
    """

    def plan(location: str) -> FilePlan:
        if is_remote(location):
            forget(location)  # nothing tells whether it has changed since it was opened
        opened = open_data(file, location, tree, access)
        if isinstance(opened, OpenTree):
            return _plan(opened, sample, access)
        return _plan_table(opened, tree, sample, access)

    own = attempt(plan, file, access, forget=forget)
    for friend in friends:
        plans = [plan_file(each, friend.tree, sample, access) for each in friend.files]
        own = befriended(own, friend, plans)
    return own


def _plan_table(opened: OpenTable, tree: str, sample: str, access: Access) -> FilePlan:
    content = opened.count()
    sizes = content.bytes_per_event
    return FilePlan(
        opened.file,
        tree,
        content.uuid,
        sample,
        content.num_entries,
        opened.known.branches,
        opened.left_out,
        content.clusters,
        content.clusters,
        {name: sizes.get(name, _nominal_bytes(b)) for name, b in opened.known.branches.items()},
        access,
        opened.stamp,
        content.lines,
        vague=opened.known.vague,
        unlike=opened.known.unlike,
        joined=opened.known.moved,
    )


def _plan(opened: OpenTree, sample: str, access: Access) -> FilePlan:
    found = without_unreadable(opened.catalogue)
    known = joined(found.branches, access.collections, partial(_multiplicities, opened))
    num_entries = int(opened.tree.num_entries)
    if opened.is_rntuple:
        clusters = _rntuple_clusters(opened)
        baskets = clusters
        sizes = {name: _nominal_bytes(branch) for name, branch in found.branches.items()}
        sizes |= dict.fromkeys(found.left_out, 64.0)
    else:
        holders = {name: source.holder for name, source in found.sources.items()}
        ends = [set(each.entry_offsets[1:]) for each in holders.values() if each.num_baskets]
        holders |= {key: each for key, each in found.holders.items() if key in found.left_out}
        clusters = tuple(sorted(set.intersection(*ends))) if ends else ()
        baskets = tuple(sorted(set.union(*ends))) if ends else ()
        sizes = {
            name: each.uncompressed_bytes / max(num_entries, 1) for name, each in holders.items()
        }
        for names in found.parts.values():  # which share the bytes of one TBranch
            sizes |= {name: sizes[name] / len(names) for name in names}
    return FilePlan(
        opened.file,
        opened.name,
        opened.uuid,
        sample,
        num_entries,
        known.branches,
        found.left_out,
        clusters,
        baskets,
        sizes,
        access,
        opened.stamp,
        filled=found.filled,
        parts=found.parts,
        vague=known.vague,
        unlike=known.unlike,
        joined=known.moved,
        opened=opened,
    )


def _multiplicities(opened: OpenTree, names: list[str]) -> dict[str, NDArray[np.int64]]:
    """By branch, of some: where the objects of each of the first entries begin."""
    stop = min(HEAD, int(opened.tree.num_entries))
    known = opened.catalogue
    tables = opened.tables_of([known.sources[name] for name in names])
    found: dict[str, NDArray[np.int64]] = {}
    try:  # all in one go, where their baskets are of the plain kind
        if tables:
            own = lambda: opened.own_bytes  # noqa: E731
            _, found = read_baskets(opened.source, tables, 0, stop, own_bytes=own)
    except (UnsupportedBasketError, ValueError):  # uproot has a word for what is wrong
        tables = {}
    return {
        name: found[tables[name].counter or name]
        if name in tables
        else offsets_of(multiplicities_of(known, known.sources[name], 0, stop))
        for name in names
    }


def _rntuple_clusters(opened: OpenTree) -> tuple[int, ...]:
    summaries = opened.tree.cluster_summaries
    return tuple(int(s.num_first_entry + s.num_entries) for s in summaries)


def _nominal_bytes(branch: Branch) -> float:
    # An RNTuple's header tells no sizes.
    mean_multiplicity = 1 if branch.kind == "flat" else 4
    return float(mean_multiplicity * np.dtype(branch.dtype).itemsize)
