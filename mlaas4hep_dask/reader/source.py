"""What a tree offers under each name, and where in the file that stands."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mlaas4hep_dask.events.events import Branch


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """The one thing in a file that a name stands for, from the plan to the last byte.

    Two branches of a tree may have one name. Whoever reads gets at the values through the source,
    which was found by its place, and never through the name.

    Parameters
    ----------
    branch : Branch
        What it offers.
    key : str
        Path in the tree of what holds the values, which no other has.
    holder : Any
        The TBranch or the field of an RNTuple, as uproot has it.
    counter : str or None
        Key of the TBranch that holds the multiplicities of a jagged one, if there is one.
    steps : tuple of str or int
        From what the holder has for an event, or for each of its objects, to one number: names of
        members and numbers of elements. Empty when the holder has plain numbers.
    interpretation : uproot.interpretation.Interpretation or None
        What the holder's bytes mean, where uproot is not right about it by itself.
    """

    branch: Branch
    key: str
    holder: Any
    counter: str | None = None
    steps: tuple[str | int, ...] = ()
    interpretation: Any = None


@dataclass(frozen=True, eq=False)
class Catalogue:
    """All that a tree holds.

    Parameters
    ----------
    sources : mapping of str to Source
        What can be an input, by its name, in the tree's order.
    left_out : mapping of str to str
        Other branches, and why they cannot be inputs.
    filled : mapping of str to int
        Those of them that have other entries than the tree, and how many.
    holders : mapping of str to Any
        By key: the TBranch of every source and counter.
    late : frozenset of str
        What was added to an RNTuple while it was filled: its earlier entries have no value of it.
    """

    sources: Mapping[str, Source]
    left_out: Mapping[str, str]
    filled: Mapping[str, int] = field(default_factory=dict)
    holders: Mapping[str, Any] = field(default_factory=dict)
    late: frozenset[str] = frozenset()

    @property
    def branches(self) -> dict[str, Branch]:
        """What can be an input, by its name."""
        return {name: source.branch for name, source in self.sources.items()}

    @property
    def parts(self) -> dict[str, tuple[str, ...]]:
        """By key of what holds something with another name, or several things: their names."""
        by_key: dict[str, list[str]] = {}
        for name, source in self.sources.items():
            if name != source.key:
                by_key.setdefault(source.key, []).append(name)
        return {key: tuple(names) for key, names in by_key.items()}

    @property
    def counters(self) -> dict[str, str]:
        """By branch that counts the objects of others: the first of those."""
        by_key: dict[str, str] = {}
        for name, source in self.sources.items():
            if source.counter is not None:
                by_key.setdefault(source.counter, name)
        return {
            name: by_key[source.key]
            for name, source in self.sources.items()
            if source.key in by_key and not source.steps
        }


def distinct(names: Iterable[str]) -> list[str]:
    """The names, with a number behind each that was there before: ``x``, ``y``, ``x (2)``."""
    times: dict[str, int] = {}
    unique = []
    for name in names:
        times[name] = times.get(name, 0) + 1
        unique.append(name if times[name] == 1 else f"{name} ({times[name]})")
    return unique
