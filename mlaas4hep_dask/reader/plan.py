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

    file_plan = attempt(plan, file, access, forget=forget)
    for friend in friends:
        plans = [plan_file(each, friend.tree, sample, access) for each in friend.files]
        file_plan = befriended(file_plan, friend, plans)
    return file_plan


def _plan_table(opened: OpenTable, tree: str, sample: str, access: Access) -> FilePlan:
    content = opened.count()
    sizes = content.bytes_per_event
    return FilePlan(
        opened.file,
        tree,
        content.uuid,
        sample,
        content.num_entries,
        opened.agreed.branches,
        opened.left_out,
        content.clusters,
        content.clusters,
        {name: sizes.get(name, _nominal_bytes(b)) for name, b in opened.agreed.branches.items()},
        access,
        opened.stamp,
        content.lines,
        vague=opened.agreed.vague,
        unlike=opened.agreed.unlike,
        joined=opened.agreed.moved,
    )


def _plan(opened: OpenTree, sample: str, access: Access) -> FilePlan:
    catalogue = without_unreadable(opened.catalogue)
    agreed = joined(catalogue.branches, access.collections, partial(_multiplicities, opened))
    num_entries = int(opened.tree.num_entries)
    if opened.is_rntuple:
        clusters = _rntuple_clusters(opened)
        baskets = clusters
        sizes = {name: _nominal_bytes(branch) for name, branch in catalogue.branches.items()}
        sizes |= dict.fromkeys(catalogue.left_out, 64.0)
    else:
        holders = {name: source.holder for name, source in catalogue.sources.items()}
        ends = [set(each.entry_offsets[1:]) for each in holders.values() if each.num_baskets]
        holders |= {
            key: each for key, each in catalogue.holders.items() if key in catalogue.left_out
        }
        clusters = tuple(sorted(set.intersection(*ends))) if ends else ()
        baskets = tuple(sorted(set.union(*ends))) if ends else ()
        sizes = {
            name: each.uncompressed_bytes / max(num_entries, 1) for name, each in holders.items()
        }
        for names in catalogue.parts.values():  # which share the bytes of one TBranch
            sizes |= {name: sizes[name] / len(names) for name in names}
    return FilePlan(
        opened.file,
        opened.name,
        opened.uuid,
        sample,
        num_entries,
        agreed.branches,
        catalogue.left_out,
        clusters,
        baskets,
        sizes,
        access,
        opened.stamp,
        filled=catalogue.filled,
        parts=catalogue.parts,
        vague=agreed.vague,
        unlike=agreed.unlike,
        joined=agreed.moved,
        counters=catalogue.counters,
        late=catalogue.late,
        opened=opened,
    )


def _multiplicities(opened: OpenTree, names: list[str]) -> dict[str, NDArray[np.int64]]:
    """By branch, of some: where the objects of each of the first entries begin."""
    stop = min(HEAD, int(opened.tree.num_entries))
    catalogue = opened.catalogue
    tables = opened.tables_of([catalogue.sources[name] for name in names])
    offsets: dict[str, NDArray[np.int64]] = {}
    try:  # all in one go, where their baskets are of the plain kind
        if tables:
            own_bytes = lambda: opened.own_bytes  # noqa: E731
            _, offsets = read_baskets(opened.source, tables, 0, stop, own_bytes=own_bytes)
    except (UnsupportedBasketError, ValueError):  # uproot has a word for what is wrong
        tables = {}
    return {
        name: offsets[tables[name].counter or name]
        if name in tables
        else offsets_of(multiplicities_of(catalogue, catalogue.sources[name], 0, stop))
        for name in names
    }


def _rntuple_clusters(opened: OpenTree) -> tuple[int, ...]:
    summaries = opened.tree.cluster_summaries
    return tuple(int(s.num_first_entry + s.num_entries) for s in summaries)


def _nominal_bytes(branch: Branch) -> float:
    # An RNTuple's header tells no sizes.
    mean_multiplicity = 1 if branch.kind == "flat" else 4
    return float(mean_multiplicity * np.dtype(branch.dtype).itemsize)
