"""The plan of one file: what it holds and where it can be cut."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlaas4hep_dask.config.locations import FriendFiles
from mlaas4hep_dask.errors import DataError, MLaaSError
from mlaas4hep_dask.reader.access import PLAIN, Access, attempt, is_remote
from mlaas4hep_dask.reader.befriend import befriended
from mlaas4hep_dask.reader.byuproot import multiplicities_of, without_unreadable
from mlaas4hep_dask.reader.counts import ReadCounts
from mlaas4hep_dask.reader.joins import HEAD, joined, what_to_write
from mlaas4hep_dask.reader.opened import OpenTree, forget, open_data
from mlaas4hep_dask.reader.partition import Friend, Partition, TextRange, cut
from mlaas4hep_dask.reader.places import Places
from mlaas4hep_dask.reader.stamp import is_same
from mlaas4hep_dask.reader.tables import OpenTable
from mlaas4hep_dask.specs.events import Branch, offsets_of

# Of a tree, for each partition of it: from so many on, to parse it takes longer than to send and
# unpack what it tells. Those who read several partitions of a file parse its tree once.
MANY_BRANCHES = 20


@dataclass(frozen=True)
class FilePlan:
    """What was learned of one file without reading its events.

    Parameters
    ----------
    file, tree, uuid, sample : str
        Path or URL, tree, the file's UUID or hash, and the sample that lists the file.
    num_entries : int
        Entries in the tree.
    branches : mapping of str to Branch
        Branches that can be inputs.
    left_out : mapping of str to str
        Other branches, and why they cannot be inputs.
    clusters : tuple of int
        Entries at which the baskets of all branches end together.
    baskets : tuple of int
        Entries at which a basket of any branch ends.
    bytes_per_event : mapping of str to float
        Uncompressed bytes per event of each branch.
    access : Access
        How the file is reached.
    stamp : str
        Size, time of change and the like, by which a change is noticed.
    lines : tuple of (int, int)
        Of a text file, ascending: entries, and the bytes of the text at which they begin.
    filled : mapping of str to int
        Branches that have other entries than the tree, and how many; they cannot be inputs.
    parts : mapping of str to tuple of str
        By name of a TBranch as others know it: the branches that it is offered as, if it has
        another name here or is several.
    vague : frozenset of str
        Branches in collections that no object in the first entries speaks for or against.
    unlike : mapping of str to str
        Branches in no common collection, though their names suggest it, and why.
    opened : OpenTree or None
        The open tree, which knows where baskets lie; it is not pickled.
    friends : tuple of Friend
        Trees with more branches of the same events.
    """

    file: str
    tree: str
    uuid: str
    sample: str
    num_entries: int
    branches: Mapping[str, Branch]
    left_out: Mapping[str, str]
    clusters: tuple[int, ...]
    baskets: tuple[int, ...]
    bytes_per_event: Mapping[str, float]
    access: Access = PLAIN
    stamp: str = ""
    lines: tuple[tuple[int, int], ...] = ()
    filled: Mapping[str, int] = field(default_factory=dict)
    parts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    vague: frozenset[str] = frozenset()
    unlike: Mapping[str, str] = field(default_factory=dict)
    opened: OpenTree | None = field(default=None, repr=False, compare=False)
    friends: tuple[Friend, ...] = ()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "opened": None}

    @property
    def own_names(self) -> dict[str, str]:
        """By branch of a friend: its name there."""
        return {
            name: name.removeprefix(each.prefix) for each in self.friends for name in each.names
        }

    @property
    def is_blank(self) -> bool:
        """True without entries: nothing there can be of another type than elsewhere."""
        return self.num_entries == 0

    def narrowed(self, names: Sequence[str]) -> FilePlan:
        """What other files are compared with if only these branches are read."""
        return replace(
            self,
            branches={name: self.branches[name] for name in names if name in self.branches},
            left_out={name: self.left_out[name] for name in names if name in self.left_out},
            vague=self.vague & {*names},
            unlike={name: self.unlike[name] for name in names if name in self.unlike},
            friends=tuple(
                replace(each, names=each.names.intersection(names)) for each in self.friends
            ),
            bytes_per_event={},
            opened=None,
        )

    def planned(self, inputs: Sequence[str]) -> PlannedFile:
        """What is needed of this file to read the branches ``inputs``, or any if there are none."""
        return PlannedFile(
            self.file,
            self.tree,
            self.uuid,
            self.sample,
            self.num_entries,
            self.clusters,
            self.baskets,
            sum(self.bytes_per_event.get(name, 0.0) for name in inputs),
            self.access,
            self.stamp,
            self.lines,
            places=self._places(inputs),
            num_branches=len(self.branches) + len(self.left_out),
            friends=tuple(
                replace(each, names=each.names.intersection(inputs) if inputs else each.names)
                for each in self.friends
            ),
        )

    def _places(self, names: Sequence[str]) -> Places | None:
        """Where the baskets of these branches lie; None if not all can be decoded here."""
        if self.opened is None or self.opened.is_rntuple:
            return None
        known = self.opened.catalogue.sources
        sources = [known[name] for name in names if name in known]
        tables = self.opened.tables_of(sources)
        is_whole = all(source.branch.name in tables for source in sources)
        return Places.of(tables) if tables and is_whole else None


@dataclass(frozen=True)
class PlannedFile:
    """One file as the client keeps it, without the list of its branches.

    The attributes are those of `FilePlan`; ``bytes_per_event`` is that of the inputs together,
    ``read_counts`` tells what planning cost beside the plain way, ``is_of_many`` that the data set
    has several trees of the file, ``places`` where the baskets of the inputs lie, and
    ``num_branches`` how many its tree has.
    """

    file: str
    tree: str
    uuid: str
    sample: str
    num_entries: int
    clusters: tuple[int, ...]
    baskets: tuple[int, ...]
    bytes_per_event: float
    access: Access = PLAIN
    stamp: str = ""
    lines: tuple[tuple[int, int], ...] = ()
    read_counts: ReadCounts = field(default_factory=ReadCounts)
    is_of_many: bool = False
    places: Places | None = None
    num_branches: int = 0
    friends: tuple[Friend, ...] = ()

    def within(self, max_places: int) -> PlannedFile:
        """Without ``places`` if they take more bytes."""
        if self.places is None or len(self.places) <= max_places:
            return self
        return replace(self, places=None)

    def is_current(self) -> bool:
        """True unless the file has changed since it was planned, or cannot be opened now."""
        try:
            opened = attempt(
                lambda location: open_data(self.file, location, self.tree, self.access),
                self.file,
                self.access,
                forget=forget,
            )
        except MLaaSError:
            return False
        return bool(self.stamp) and is_same(self.stamp, opened.stamp)

    def friends_as_json(self) -> list[Any]:
        """What is read of friend trees, as JSON values."""
        return [each.as_json() for each in self.friends if each.names]

    def partitions(
        self, *, target_bytes: int, max_events: int, num_entries: int
    ) -> list[Partition]:
        """Partitions of the first ``num_entries`` entries.

        Each has at most ``target_bytes`` uncompressed bytes of the inputs, by the file's mean,
        and at most ``max_events`` events.
        """
        limit = max(1, min(max_events, int(target_bytes / max(self.bytes_per_event, 1.0))))
        ranges = cut(num_entries, max_events=limit, clusters=self.clusters, baskets=self.baskets)
        places = self._places(ranges)
        return [self._partition(*entries, own) for entries, own in zip(ranges, places, strict=True)]

    def partition(self, entry_start: int, entry_stop: int) -> Partition:
        """The entries [entry_start, entry_stop) of the file."""
        (own,) = self._places([(entry_start, entry_stop)])
        return self._partition(entry_start, entry_stop, own)

    def _places(self, ranges: Sequence[tuple[int, int]]) -> Sequence[Places | None]:
        """What the partitions carry, for which to parse the tree would take long."""
        if self.places is None or self.num_branches < MANY_BRANCHES * len(ranges):
            return [None] * len(ranges)
        return self.places.parts(ranges)

    def _partition(self, entry_start: int, entry_stop: int, places: Places | None) -> Partition:
        return Partition(
            self.file,
            self.tree,
            self.uuid,
            entry_start,
            entry_stop,
            self.sample,
            self.access,
            self.stamp,
            self._text(entry_start, entry_stop),
            self.is_of_many,
            places,
            tuple(friend for friend in self.friends if friend.names),
        )

    def _text(self, start: int, stop: int) -> TextRange | None:
        if not self.lines:
            return None
        first = bisect_right(self.lines, start, key=lambda line: line[0]) - 1
        last = bisect_left(self.lines, stop, key=lambda line: line[0])
        (first_entry, byte_start), (end, byte_stop) = self.lines[first], self.lines[last]
        return TextRange(byte_start, byte_stop, first_entry, end - first_entry)


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
        opened=opened,
    )


def _multiplicities(opened: OpenTree, names: list[str]) -> dict[str, NDArray[np.int64]]:
    """By branch, of some: where the objects of each of the first entries begin."""
    stop = min(HEAD, int(opened.tree.num_entries))
    known = opened.catalogue
    return {
        name: offsets_of(multiplicities_of(known, known.sources[name], 0, stop)) for name in names
    }


def _rntuple_clusters(opened: OpenTree) -> tuple[int, ...]:
    summaries = opened.tree.cluster_summaries
    return tuple(int(s.num_first_entry + s.num_entries) for s in summaries)


def _nominal_bytes(branch: Branch) -> float:
    # An RNTuple's header tells no sizes.
    mean_multiplicity = 1 if branch.kind == "flat" else 4
    return float(mean_multiplicity * np.dtype(branch.dtype).itemsize)


def _why_left_out(plan: FilePlan, name: str) -> str | None:
    """Why the file lacks a branch, or all of the array or struct that it is an element of."""
    ends = [at for at, sign in enumerate(name) if sign in "[./"]
    wholes = (name[:at] for at in (len(name), *reversed(ends)))
    return next((plan.left_out[each] for each in wholes if each in plan.left_out), None)


def require_same_branches(
    reference: FilePlan, other: FilePlan, names: Sequence[str], *, advice: str = ""
) -> None:
    """Raise a DataError unless both files hold the branches ``names`` with equal types.

    A user's function may read those that cannot be inputs too. A file without events has none that
    could be of another type, and fits all others; a text does if its header does. ``advice`` ends
    the error of a branch that is missing.
    """
    if other.is_blank:
        if not other.lines:
            return
        header = other.branches.keys() | other.left_out.keys()  # JSON lines have none
        names = [n for n in names if header and n in reference.branches and n not in header]
    is_text = bool(other.lines) or bool(reference.lines)
    hint = "; types that the first lines do not tell can be given in reading.types"
    theirs, others_theirs = reference.own_names, other.own_names
    for name in names:
        expected = reference.branches.get(name)
        found = other.branches.get(name)
        if expected is None:
            reason, why = reference.left_out[name], other.left_out.get(name)
            if why == reason:
                continue
            state = why or (found.described() if found else "missing")
            text = (
                f"is {state} in tree {other.tree!r} of {other.file}; it is {reason} in "
                f"{reference.file}"
            )
        elif found is None:
            why = _why_left_out(other, name)
            state = f"is {why}" if why else "is missing"
            missing = [n for n in names if n in reference.branches and n not in other.branches]
            others = f"; {len(missing)} branches are missing there" if missing[1:] else ""
            text = (
                f"{state} in tree {other.tree!r} of {other.file}; it is {expected.kind} "
                f"{expected.dtype} in {reference.file}{others}{advice}"
            )
        elif (name in theirs) != (name in others_theirs):
            here, there = (reference, other) if name in theirs else (other, reference)
            text = (
                f"is of a friend tree of {here.file}, and of the tree itself in {there.file}; a "
                "prefix tells them apart"
            )
        elif _is_told_apart(name, expected, found, reference, other):
            whole = found if found.collection != name else expected
            why = other.unlike.get(name) or reference.unlike.get(name)
            text = (
                f"is of collection {found.collection!r} in {other.file} and of "
                f"{expected.collection!r} in {reference.file}{f': {why}' if why else ''}; "
                f"{what_to_write(str(whole.collection))}"
            )
        elif (expected.kind, expected.dtype) != (found.kind, found.dtype):
            text = (
                f"is {found.described()} in {other.file} but {expected.described()} in "
                f"{reference.file}{hint if is_text and found.dtype != expected.dtype else ''}"
            )
        else:
            continue
        raise DataError(f"branch {name!r} {text}", file=other.file, tree=other.tree, branch=name)


def _is_told_apart(
    name: str, expected: Branch, found: Branch, reference: FilePlan, other: FilePlan
) -> bool:
    """True for jagged branches of two collections, unless one file has no object to tell by."""
    if expected.kind != found.kind or expected.collection == found.collection:
        return False
    return name not in reference.vague and name not in other.vague
