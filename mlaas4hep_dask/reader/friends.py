"""Reads branches of friend trees: by entry, or by what identifies an event in both trees."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlaas4hep_dask.errors import DataError
from mlaas4hep_dask.events.events import Branch, Events, concatenate, offsets_of
from mlaas4hep_dask.reader.joins import Agreement, DisagreementError
from mlaas4hep_dask.reader.partition import Friend, FriendFile, Partition

MAX_KEPT = 4  # indices of identifiers

Read = Callable[[Partition, Sequence[Branch]], Events]


def split(
    partition: Partition, branches: Sequence[Branch]
) -> tuple[list[Branch], list[tuple[Friend, list[Branch]]]]:
    """The branches of the partition's own tree, and those of its friends."""
    owners = {name: friend for friend in partition.friends for name in friend.names}
    ours = [branch for branch in branches if branch.name not in owners]
    theirs = [
        (friend, [branch for branch in branches if owners.get(branch.name) is friend])
        for friend in partition.friends
    ]
    return ours, [(friend, of_friend) for friend, of_friend in theirs if of_friend]


def with_friends(
    events: Events,
    partition: Partition,
    theirs: Sequence[tuple[Friend, list[Branch]]],
    read: Read,
) -> Events:
    """The events of a partition, with branches of its friends.

    Raises
    ------
    DataError
        When a friend lacks an event, has it twice, or counts the objects of a collection
        otherwise.
    """
    contents: dict[str, NDArray[Any]] = dict(events.contents)
    offsets = dict(events.offsets)
    branches = list(events.branches)
    agreement = Agreement()
    for branch in branches:
        if branch.collection in offsets:
            agreement.of(branch, offsets[branch.collection])
    for friend, of_friend in theirs:
        friend_events = _of_friend(friend, partition, of_friend, read)
        for branch in of_friend:
            contents[branch.name] = friend_events.contents[branch.name.removeprefix(friend.prefix)]
            if branch.collection is not None:
                try:
                    ends = agreement.of(branch, friend_events.offsets[branch.collection])
                except DisagreementError as error:
                    raise error.within(partition, branch.collection) from None
                offsets[branch.collection] = ends
        branches += of_friend
    return Events(events.num_events, tuple(branches), contents, offsets)


def _of_friend(
    friend: Friend, partition: Partition, branches: Sequence[Branch], read: Read
) -> Events:
    bare = [replace(branch, name=branch.name.removeprefix(friend.prefix)) for branch in branches]
    start, stop = partition.entry_start, partition.entry_stop
    if not friend.by:
        return read(_part(friend, friend.files[0], partition, start, stop), bare)
    numbers, entries = _places(friend, partition, read)
    parts, order = [], np.empty(len(entries), dtype=np.int64)
    num_before = 0
    for number, file in enumerate(friend.files):
        here = np.flatnonzero(numbers == number)
        if here.size == 0:
            continue
        low, high = int(entries[here].min()), int(entries[here].max()) + 1
        parts.append(read(_part(friend, file, partition, low, high), bare))
        order[here] = entries[here] - low + num_before
        num_before += high - low
    if not parts:
        file = friend.files[0]
        return read(_part(friend, file, partition, 0, 0), bare)
    return _taken(concatenate(parts), order)


def _part(
    friend: Friend, file: FriendFile, partition: Partition, start: int, stop: int
) -> Partition:
    return Partition(
        file.file,
        friend.tree,
        file.uuid,
        start,
        stop,
        partition.sample,
        partition.access,
        file.stamp,
    )


def _taken(events: Events, order: NDArray[np.int64]) -> Events:
    """The events of the given numbers, in that order."""
    objects: dict[str, NDArray[np.int64]] = {}
    offsets = {}
    for collection, ends in events.offsets.items():
        multiplicities = np.diff(ends)[order]
        offsets[collection] = offsets_of(multiplicities)
        first = np.repeat(ends[:-1][order] - offsets[collection][:-1], multiplicities)
        objects[collection] = first + np.arange(int(multiplicities.sum()))
    contents = {
        branch.name: events.contents[branch.name][
            order if branch.collection is None else objects[branch.collection]
        ]
        for branch in events.branches
    }
    return Events(len(order), events.branches, contents, offsets)


class _Index:
    """Where each event of a friend tree is, by what identifies it."""

    def __init__(self, columns: Sequence[NDArray[np.int64]], sizes: Sequence[int]) -> None:
        self._identifiers = [np.unique(column) for column in columns]
        self._codes = self._coded(columns)[0]
        self._order = np.argsort(self._codes, kind="stable")
        self._codes = self._codes[self._order]
        self._ends = np.cumsum(sizes)

    def _coded(self, columns: Sequence[NDArray[np.int64]]) -> tuple[NDArray[np.int64], Any]:
        """One number for each event, and whether all of its identifiers occur."""
        codes = np.zeros(len(columns[0]), dtype=np.int64)
        is_known = np.ones(len(columns[0]), dtype=np.bool_)
        size = 1
        for column, values in zip(columns, self._identifiers, strict=True):
            size *= max(len(values), 1)
            if size >= 2**63:
                raise DataError(f"too many combinations of identifiers for an index: {size}")
            places = np.searchsorted(values, column)
            places[places == len(values)] = 0
            is_known &= (values[places] == column) if len(values) else False
            codes = codes * max(len(values), 1) + places
        return codes, is_known

    def find(
        self, columns: Sequence[NDArray[np.int64]]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """How often each event occurs, and the file and the entry of its first occurrence."""
        codes, is_known = self._coded(columns)
        low = np.searchsorted(self._codes, codes, side="left")
        often = np.where(is_known, np.searchsorted(self._codes, codes, side="right") - low, 0)
        if len(self._order) == 0:
            return often, low, low
        places = self._order[np.minimum(low, len(self._order) - 1)]
        files = np.searchsorted(self._ends, places, side="right")
        begins = np.concatenate([[0], self._ends])[files]
        return often, files, places - begins


_indices: OrderedDict[Any, _Index] = OrderedDict()
_lock = Lock()


def _index(friend: Friend, partition: Partition, read: Read) -> _Index:
    key = (friend.files, friend.tree, friend.by)
    with _lock:
        if key in _indices:
            _indices.move_to_end(key)
            return _indices[key]
    columns: list[list[NDArray[np.int64]]] = [[] for _ in friend.by]
    there = [Branch(name, "flat", dtype) for name, _, dtype in friend.by]
    for file in friend.files:
        part = _part(friend, file, partition, 0, file.num_entries)
        for column, values in zip(columns, _identifiers(there, part, read), strict=True):
            column.append(_as_int64(values))
    index = _Index(
        [np.concatenate(each) for each in columns], [f.num_entries for f in friend.files]
    )
    with _lock:
        _indices[key] = index
        while len(_indices) > MAX_KEPT:
            _indices.popitem(last=False)
    return index


def _identifiers(
    branches: Sequence[Branch], partition: Partition, read: Read
) -> list[NDArray[Any]]:
    events = read(partition, branches)
    return [events.contents[branch.name] for branch in branches]


def _as_int64(values: NDArray[Any]) -> NDArray[np.int64]:
    """Whole numbers of any dtype, those beyond int64 by their bits."""
    return values.view(np.int64) if values.dtype == np.uint64 else values.astype(np.int64)


def _places(
    friend: Friend, partition: Partition, read: Read
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """File number and entry of every event of a partition in a friend tree."""
    here = [Branch(name, "flat", dtype) for name, dtype, _ in friend.by]
    columns = _identifiers(here, replace(partition, friends=()), read)
    index = _index(friend, partition, read)
    often, files, entries = index.find([_as_int64(column) for column in columns])
    for wrong, what in ((often == 0, "no entry"), (often > 1, "several entries")):
        if wrong.any():
            event = int(np.flatnonzero(wrong)[0])
            identifiers = ", ".join(
                f"{branch.name} {column[event]}"
                for branch, column in zip(here, columns, strict=True)
            )
            raise DataError.in_tree(
                partition,
                f"{np.count_nonzero(wrong):,} of {len(partition):,} events of {partition} have "
                f"{what} in the {friend}; the first is entry {partition.entry_start + event} with "
                f"{identifiers}",
                entry=partition.entry_start + event,
            )
    return files, entries
