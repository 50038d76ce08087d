"""What is known of one file before its events are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mlaas4hep_dask.events.events import Branch
from mlaas4hep_dask.reader.access import PLAIN, Access
from mlaas4hep_dask.reader.opened import OpenTree
from mlaas4hep_dask.reader.partition import Friend
from mlaas4hep_dask.reader.places import Places
from mlaas4hep_dask.reader.planned import PlannedFile


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
    joined : frozenset of str
        Branches in a collection that the file does not tell of, for their multiplicities are equal.
    counters : mapping of str to str
        By branch that counts the objects of others, as the file tells: one of those.
    late : frozenset of str
        Branches that were added to an RNTuple while it was filled.
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
    joined: frozenset[str] = frozenset()
    counters: Mapping[str, str] = field(default_factory=dict)
    late: frozenset[str] = frozenset()
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

    def counters_of(self, branches: Mapping[str, Branch]) -> dict[str, str]:
        """By branch that counts objects: the collection that these are in among ``branches``."""
        return {
            name: str(branches[member].collection)
            for name, member in self.counters.items()
            if name in branches and member in branches and branches[member].kind == "jagged"
        }

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
            late=tuple(sorted(self.late.intersection(inputs))),
            friends=tuple(
                replace(each, names=each.names.intersection(inputs) if inputs else each.names)
                for each in self.friends
            ),
        )

    def _places(self, names: Sequence[str]) -> Places | None:
        """Where the baskets of these branches lie; None if not all can be decoded here."""
        if self.opened is None or self.opened.is_rntuple:
            return None
        by_name = self.opened.catalogue.sources
        sources = [by_name[name] for name in names if name in by_name]
        tables = self.opened.tables_of(sources)
        is_whole = all(source.branch.name in tables for source in sources)
        return Places.of(tables) if tables and is_whole else None
