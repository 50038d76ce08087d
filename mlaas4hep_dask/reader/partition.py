"""Partitions: entry ranges of one file, cut where its clusters or baskets end."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from mlaas4hep_dask.reader.access import PLAIN, Access
from mlaas4hep_dask.reader.places import Places


class TextRange(NamedTuple):
    """``num_entries`` whole lines of a text file, of which the first is ``first_entry``.

    Blank lines are not counted; the bytes are counted in the uncompressed text.
    """

    byte_start: int
    byte_stop: int
    first_entry: int
    num_entries: int


class FriendFile(NamedTuple):
    """A file of a friend tree as it was planned; see `Partition` for what the fields are."""

    file: str
    uuid: str
    stamp: str
    num_entries: int


@dataclass(frozen=True, slots=True)
class Friend:
    """A tree with more branches of the events of another.

    Parameters
    ----------
    files : tuple of FriendFile
        One, unless events are found by identifiers.
    tree : str
        Name of the tree.
    by : tuple of (str, str, str)
        Branches of both trees that identify an event, and their dtypes in the other tree and in
        this one; empty where entries belong together.
    prefix : str
        Stands in front of the names of its branches.
    names : frozenset of str
        What is read of it, with the prefix.
    """

    files: tuple[FriendFile, ...]
    tree: str
    by: tuple[tuple[str, str, str], ...]
    prefix: str
    names: frozenset[str]

    def as_json(self) -> list[Any]:
        """All of it as JSON values."""
        return [self.files, self.tree, self.by, self.prefix, sorted(self.names)]

    def __str__(self) -> str:
        more = f" and {len(self.files) - 1} more files" if self.files[1:] else ""
        return f"friend tree {self.tree!r} of {self.files[0].file}{more}"


@dataclass(frozen=True, slots=True)
class Partition:
    """A planned entry range of one file; a few hundred bytes when pickled, without ``places``.

    Parameters
    ----------
    file : str
        Path or URL, or URLs of replicas joined by ``|``.
    tree : str
        Name of the TTree or RNTuple.
    uuid : str
        UUID of a ROOT file, or hash of another, when it was planned.
    entry_start, entry_stop : int
        Half-open range of entries.
    sample : str
        Name of the sample.
    access : Access
        How the file is reached.
    stamp : str
        Size, time of change and the like when the file was planned; empty if unknown.
    text : TextRange or None
        Lines that hold the entries, for CSV and JSON lines.
    is_of_many : bool
        The data set has several trees of the file.
    places : Places or None
        Where the baskets of what is read lie, for files whose trees take long to parse.
    friends : tuple of Friend
        Trees with more branches of the same events.
    """

    file: str
    tree: str
    uuid: str
    entry_start: int
    entry_stop: int
    sample: str
    access: Access = PLAIN
    stamp: str = ""
    text: TextRange | None = None
    is_of_many: bool = False
    places: Places | None = field(default=None, repr=False, compare=False)
    friends: tuple[Friend, ...] = ()

    @property
    def identity(self) -> str:
        """What ids of events and their split come from, beside the entry.

        It is the UUID, with the tree where a data set has several of the file, so that the same
        entry of two trees is not one event.
        """
        return f"{self.uuid}:{self.tree}" if self.is_of_many else self.uuid

    def __len__(self) -> int:
        return self.entry_stop - self.entry_start

    def __str__(self) -> str:
        return f"{self.file}:{self.tree} entries {self.entry_start}-{self.entry_stop}"


def cut(
    num_entries: int,
    *,
    max_events: int,
    clusters: Sequence[int] = (),
    baskets: Sequence[int] = (),
) -> list[tuple[int, int]]:
    """Half-open entry ranges that cover ``num_entries`` entries, each at most ``max_events``.

    A range ends where a cluster ends if one ends near the aimed-for size, else where a basket
    of some branch ends, else anywhere: reading a part of a cluster decompresses all of it.

    Parameters
    ----------
    num_entries : int
        Entries to cover.
    max_events : int
        Largest range.
    clusters : sequence of int
        Ascending entries at which the baskets of all branches end together.
    baskets : sequence of int
        Ascending entries at which a basket of any branch ends.
    """
    ranges = []
    start = 0
    while start < num_entries:
        remaining = num_entries - start
        aim = start + math.ceil(remaining / math.ceil(remaining / max_events))
        limit = min(start + max_events, num_entries)
        lowest = start + max(1, (aim - start) // 2)
        stop = _nearest(clusters, aim, lowest, limit)
        if stop is None and limit < num_entries:
            stop = _nearest(baskets, aim, lowest, limit)
        if stop is None:
            stop = min(aim, limit)
        ranges.append((start, stop))
        start = stop
    return ranges


def _nearest(boundaries: Sequence[int], aim: int, lowest: int, limit: int) -> int | None:
    place = bisect_right(boundaries, aim)
    around = [b for b in boundaries[max(place - 1, 0) : place + 1] if lowest <= b <= limit]
    return min(around, key=lambda boundary: abs(boundary - aim), default=None)
