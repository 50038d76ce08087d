"""Jagged branches that share their multiplicities, though their file does not say so.

uproot writes each jagged branch of a dict with a counter of its own, and nothing counts vectors and
lists. A physicist means one collection by ``Jet_pt`` and ``Jet_eta`` all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlaas4hep_dask.errors import DataError
from mlaas4hep_dask.events.events import Branch
from mlaas4hep_dask.patterns import any_matches
from mlaas4hep_dask.reader.partition import Partition

HEAD = 1000  # entries of a file that tell which lists have equal lengths

#: By name of a collection: patterns of its branches; none for branches that stay apart.
Collections = tuple[tuple[str, tuple[str, ...]], ...]
Offsets = NDArray[np.int64]


class Joined(NamedTuple):
    """Branches with the collections that people mean.

    Parameters
    ----------
    branches : dict of str to Branch
        All branches, in the order that they had.
    vague : frozenset of str
        Those in a collection that no object in the first entries speaks for or against.
    unlike : mapping of str to str
        Those that are in no common collection, though their names suggest it, and why.
    moved : frozenset of str
        Those that are in another collection than the file tells.
    """

    branches: dict[str, Branch]
    vague: frozenset[str] = frozenset()
    unlike: Mapping[str, str] = {}
    moved: frozenset[str] = frozenset()


def joined(
    branches: Mapping[str, Branch],
    wished: Collections,
    head: Callable[[list[str]], Mapping[str, Offsets]],
) -> Joined:
    """The branches with the collections that are wished for, and those that can be guessed.

    Collections of which all names have the part before the first underscore in common are one if
    their multiplicities are equal in the first entries. Other entries do not change that: reading
    compares, and does not go on where they differ.

    Parameters
    ----------
    branches : mapping of str to Branch
        With the collections that the file tells.
    wished : Collections
        What the user says of collections.
    head : callable
        By branch, of some: where the objects of each of the first entries begin.
    """
    result = dict(branches)
    jagged = {name: each for name, each in branches.items() if each.collection is not None}
    rest = dict(jagged)
    for name, patterns in wished:
        for member in [member for member in rest if any_matches(patterns, member)]:
            result[member] = replace(rest.pop(member), collection=name)
    members: dict[str, list[str]] = {}
    for name, branch in rest.items():
        members.setdefault(str(branch.collection), []).append(name)
    groups = _groups(members)
    apart = tuple(name for name, patterns in wished if not patterns)
    wished_names = {name for name, patterns in wished if patterns}
    groups = {
        prefix: collections
        for prefix, collections in groups.items()
        if prefix not in branches
        and prefix not in wished_names
        and not any_matches(apart, prefix)
        and (prefix in collections or prefix not in members)
    }
    if not groups:
        return Joined(result, moved=_moved(branches, result))
    representatives = [members[each][0] for collections in groups.values() for each in collections]
    offsets = head(representatives)
    vague: set[str] = set()
    unlike: dict[str, str] = {}
    for prefix, collections in groups.items():
        first, *others = (members[each][0] for each in collections)
        names = [name for each in collections for name in members[each]]
        agreement = Agreement()
        try:
            for each in (first, *others):
                agreement.of(replace(rest[each], collection=prefix), offsets[each])
        except DisagreementError as error:
            unlike.update(dict.fromkeys(names, error.difference(0)))
            continue
        result.update({name: replace(rest[name], collection=prefix) for name in names})
        if offsets[first][-1] == 0:
            vague.update(names)
    return Joined(result, frozenset(vague), unlike, _moved(branches, result))


def _moved(before: Mapping[str, Branch], after: Mapping[str, Branch]) -> frozenset[str]:
    return frozenset(n for n, each in after.items() if each.collection != before[n].collection)


def _groups(members: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """By the beginning that the names of collections have in common: those collections.

    A name with a dot or a slash, such as ``BTagging_AuxDyn.pb``, tells its container there.
    """
    groups: dict[str, list[str]] = {}
    for collection, names in members.items():
        if any("." in name or "/" in name for name in names):
            continue
        prefixes = {name.split("_", 1)[0] for name in names}
        if len(prefixes) == 1 and "" not in prefixes:
            groups.setdefault(prefixes.pop(), []).append(collection)
    return {prefix: each for prefix, each in groups.items() if len(each) > 1}


def what_to_write(collection: str, *, is_apart: bool = False) -> str:
    """What a user can do where branches are joined and should not be, or the other way round."""
    advice = f"name those that belong together, as in 'collections: {{{collection}: [A, B]}}'"
    if is_apart:
        return advice
    return f"write 'collections: {{{collection}: false}}' to keep branches apart, or {advice}"


class DisagreementError(Exception):
    """Two branches of a collection have different multiplicities."""

    def __init__(self, first: str, second: str, one: Offsets, other: Offsets) -> None:
        super().__init__(first, second)
        self.first, self.second = first, second
        self.entry, self.multiplicities = -1, (0, 0)
        if len(one) == len(other):
            multiplicities, others = np.diff(one), np.diff(other)
            self.entry = int(
                np.flatnonzero(multiplicities != others)[0]
            )  # there is one, or no error
            self.multiplicities = int(multiplicities[self.entry]), int(others[self.entry])

    def difference(self, entry_start: int) -> str:
        """What differs, and where if entries are counted from ``entry_start``."""
        if self.entry < 0:
            return f"{self.second!r} and {self.first!r} have different numbers of entries"
        one, other = self.multiplicities
        return (
            f"in entry {entry_start + self.entry} {self.first!r} has {one} objects, and "
            f"{self.second!r} {other}"
        )

    def within(self, partition: Partition, collection: str) -> DataError:
        """The error that a user gets."""
        text = self.difference(partition.entry_start)
        return DataError.in_tree(
            partition,
            f"branch {self.second!r} has other multiplicities than {self.first!r} of the same "
            f"collection {collection!r} in {partition}: {text}; {what_to_write(collection)}",
            branch=self.second,
        )


class Agreement:
    """Compares the multiplicities of all branches of each collection of a partition."""

    def __init__(self) -> None:
        self._first: dict[str, tuple[str, Offsets]] = {}

    def of(self, branch: Branch, offsets: Offsets) -> Offsets:
        """The offsets of the branch's collection: one array, however many branches have it.

        Raises
        ------
        DisagreementError
            When those of an earlier branch are others.
        """
        first, common = self._first.setdefault(str(branch.collection), (branch.name, offsets))
        if common is not offsets and not np.array_equal(common, offsets):
            raise DisagreementError(first, branch.name, common, offsets)
        return common
