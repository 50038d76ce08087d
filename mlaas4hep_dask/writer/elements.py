"""Names of the elements of arrays in ROOT files, where brackets tell the length of an array."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from mlaas4hep_dask.events import Branch, Events
from mlaas4hep_dask.writer.sink import Sink


def stored_names(branches: Sequence[Branch]) -> dict[str, str]:
    """By branch with another name in a ROOT file: ``mat_0_1`` for ``mat[0][1]``.

    A branch keeps its name where another has that already.
    """
    names = [branch.name for branch in branches]
    names_there = {name: re.sub(r"\[([0-9]+)\]", r"_\1", name) for name in names}
    new_names = list(names_there.values())
    return {
        name: new for name, new in names_there.items() if new != name and new_names.count(new) == 1
    }


class Renaming:
    """A sink that gives another one events with other names of branches.

    Parameters
    ----------
    sink : Sink
        Was made for the new names.
    names : mapping of str to str
        New names, of some branches.
    """

    def __init__(self, sink: Sink, names: Mapping[str, str]) -> None:
        self._sink = sink
        self._names = names

    def append(self, events: Events) -> None:
        """Write some events."""
        names = {
            branch.name: self._names.get(branch.name, branch.name) for branch in events.branches
        }
        branches = tuple(replace(branch, name=names[branch.name]) for branch in events.branches)
        contents = {names[name]: events.contents[name] for name in names}
        self._sink.append(replace(events, branches=branches, contents=contents))

    def close(self, note: str | None) -> None:
        """Close the file, with a text about it."""
        self._sink.close(note)

    def abandon(self) -> None:
        """Close the file as it is."""
        self._sink.abandon()
