"""Writes events as a TTree in which each collection has one counter.

The time that this takes grows with the square of the number of branches: uproot adds up the bytes
of all branches before one for each.
"""

from __future__ import annotations

import re
from collections.abc import Container
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np

from mlaas4hep_dask.errors import WriteError
from mlaas4hep_dask.events import Branch, Events
from mlaas4hep_dask.writer.rootfile import RootFile

# int8 to uint64, float32, float64 and bool are what a TLeaf holds.
DTYPES = "?bhilqBHILQfd"
COUNTERS = ("int32", "uint32")  # what ROOT takes as the length of an array
UNFIT = re.compile(r"[\[\]/:;\s]")  # in the name of a branch
GROWTH = 10  # of the room for baskets in the tree's header


class TreeSink(RootFile):
    """A TTree in a new ROOT file, one basket of every branch for each `append`.

    Parameters
    ----------
    path : Path
        The file; an existing one is overwritten.
    branches : tuple of Branch
        Flat and jagged branches of numbers.
    tree : str
        Name of the tree.

    Raises
    ------
    WriteError
        When a name or a dtype cannot be that of a TBranch.
    """

    def __init__(self, path: Path, branches: tuple[Branch, ...], tree: str) -> None:
        for branch in branches:
            _require_fit(branch)
        self._counters = counters_of(branches)
        self._stored = {
            counter: next(
                (np.dtype(branch.dtype) for branch in branches if branch.name == counter),
                np.dtype(np.int32),
            )
            for counter in self._counters.values()
        }
        types: dict[str, Any] = {}
        counter_of_branch: dict[str, str] = {}
        for branch in branches:
            if branch.collection is None:
                types[branch.name] = np.dtype(branch.dtype)
            else:
                # As text, such as "var * float32", each would make awkward build a parser.
                number = ak.types.NumpyType(np.dtype(branch.dtype).name)
                types[branch.name] = ak.types.ListType(number)
                counter_of_branch[branch.name] = self._counters[branch.collection]
        super().__init__(path)
        units = {branch.name: branch.unit for branch in branches if branch.unit is not None}
        is_set = bool(units) or np.uint32 in self._stored.values()
        # With room for one basket the tree's header is written again by the first `extend`, with
        # the titles and dtypes set below: uproot has no other way to give them.
        self._tree = self._file.mktree(
            tree,
            types,
            counter_name=counter_of_branch.__getitem__,
            initial_basket_capacity=1 if is_set else GROWTH,
            resize_factor=GROWTH,
        )
        if is_set:
            self._set_header(units)

    def _set_header(self, units: dict[str, str]) -> None:
        for datum in self._tree._cascading._branch_data:
            name = datum["fName"]
            unit = units.get(name)
            if unit is not None:
                datum["fTitle"] = f"{name} [{unit}]"
            if datum["kind"] == "counter" and self._stored[name] == np.uint32:
                datum["dtype"] = np.dtype(">u4")

    def append(self, events: Events) -> None:
        """Write some events.

        Raises
        ------
        WriteError
            When a flat branch that is a collection's counter disagrees with it.
        """
        data: dict[str, Any] = {}
        for branch in events.branches:
            content = events.contents[branch.name]
            if branch.collection is None:
                if branch.name in self._stored:
                    self._require_agreement(branch, events)
                data[branch.name] = content
            else:
                offsets = ak.index.Index64(events.offsets[branch.collection])
                layout = ak.contents.ListOffsetArray(offsets, ak.contents.NumpyArray(content))
                data[branch.name] = ak.Array(layout)
        self._tree.extend(data)

    def _require_agreement(self, branch: Branch, events: Events) -> None:
        for collection, counter in self._counters.items():
            if counter != branch.name:
                continue
            multiplicities = np.diff(events.offsets[collection])
            wrong = np.flatnonzero(events.contents[branch.name] != multiplicities)
            if wrong.size:
                event = int(wrong[0])
                raise WriteError(
                    f"branch {branch.name!r} is {events.contents[branch.name][event]} in an event "
                    f"with {multiplicities[event]} objects in collection {collection!r}, whose "
                    "counter it would be; leave it out, or write Parquet",
                    branch=branch.name,
                )


def counter_name(collection: str, names: Container[str]) -> str:
    """The branch that counts a collection; from it the reader makes the same name of it.

    ``nJet`` counts ``Jet``. A lower-case name is its own counter unless a branch has it.
    """
    return f"n{collection}" if collection[:1].isupper() or collection in names else collection


def counters_of(branches: tuple[Branch, ...]) -> dict[str, str]:
    """By collection, the branch that will hold its multiplicities.

    A collection whose name cannot be that of a branch is counted by one that is called after its
    first branch.

    Raises
    ------
    WriteError
        When a branch of another kind has that name.
    """
    by_name = {branch.name: branch for branch in branches}
    counters: dict[str, str] = {}
    for branch in branches:
        if branch.collection is None or branch.collection in counters:
            continue
        # Chosen objects are called like 'Jet[(Jet_pt > 30)]', which is no name for a counter.
        is_name = UNFIT.search(branch.collection) is None
        counter = counter_name(branch.collection if is_name else branch.name, by_name)
        other = by_name.get(counter)
        if other is not None and (other.kind == "jagged" or other.dtype not in COUNTERS):
            raise WriteError(
                f"branch {counter!r} is {other.kind} {other.dtype}, and has the name of the "
                f"counter of collection {branch.collection!r}, which is int32 or uint32; leave it "
                "out, or write Parquet",
                branch=counter,
            )
        counters[branch.collection] = counter
    return counters


def _require_fit(branch: Branch) -> None:
    if UNFIT.search(branch.name) or not branch.name:
        raise WriteError(
            f"branch {branch.name!r} cannot be in a TTree: its name has a bracket, slash, colon or "
            "space; write Parquet",
            branch=branch.name,
        )
    if np.dtype(branch.dtype).char not in DTYPES:
        raise WriteError(
            f"branch {branch.name!r} is {branch.dtype}, which a TTree cannot hold; write Parquet",
            branch=branch.name,
        )
