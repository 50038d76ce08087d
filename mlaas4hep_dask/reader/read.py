"""Reads one partition of one file into events."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlaas4hep_dask.errors import DataError, UnreadableFileError
from mlaas4hep_dask.events.events import Branch, Events, between
from mlaas4hep_dask.reader.access import attempt, is_remote
from mlaas4hep_dask.reader.baskets import read_baskets
from mlaas4hep_dask.reader.byuproot import read_by_uproot
from mlaas4hep_dask.reader.cells import is_kept_as
from mlaas4hep_dask.reader.friends import split, with_friends
from mlaas4hep_dask.reader.joins import Agreement, DisagreementError
from mlaas4hep_dask.reader.opened import OpenTree, forget, open_data
from mlaas4hep_dask.reader.partition import Partition
from mlaas4hep_dask.reader.places import BasketTable, whole_baskets
from mlaas4hep_dask.reader.source import Source
from mlaas4hep_dask.reader.stamp import is_same
from mlaas4hep_dask.reader.tables import OpenTable
from mlaas4hep_dask.reader.uncompress import NoOffsetsError, UnsupportedBasketError
from mlaas4hep_dask.specs.meter import Meter

logger = logging.getLogger(__name__)


def read(
    partition: Partition,
    branches: Sequence[Branch],
    meter: Meter | None = None,
    keep: Collection[str] | None = None,
) -> Events:
    """Events of one partition with the given branches, as the plan found them.

    Parameters
    ----------
    partition : Partition
        Entry range of a file.
    branches : sequence of Branch
        What to read.
    meter : Meter, optional
        Measures what it can of the values while they are read; for `measure` to use.
    keep : collection of str, optional
        Names of the branches whose values are needed; by default those of all. The events may lack
        others, of which the meter has seen all that `measure` needs.

    Raises
    ------
    UnreadableFileError
        When the file cannot be read, after a bounded number of attempts if it is remote.
    DataError
        When the file has changed since it was planned, or its collections are not consistent.
    """
    ours, theirs = split(partition, branches)
    if not theirs:
        return _read_file(partition, branches, meter, keep)
    events = Events(len(partition), (), {}, {})
    if ours:
        events = _read_file(partition, ours, meter, keep)
    complete = with_friends(events, partition, theirs, read)
    present = tuple(branch for branch in branches if branch.name in complete.contents)
    return replace(complete, branches=present)


def _read_file(
    partition: Partition,
    branches: Sequence[Branch],
    meter: Meter | None,
    keep: Collection[str] | None,
) -> Events:
    """As `read`, of the partition's own file alone."""

    def once(location: str) -> tuple[Events, Meter | None]:
        # An attempt that is given up may still be at it when the next one has ended.
        attempt_meter = None if meter is None else meter.fresh()
        opened = _open_at(location, partition)
        if isinstance(opened, OpenTable):
            return opened.read(partition, branches), attempt_meter
        return _read(opened, partition, branches, attempt_meter, keep), attempt_meter

    events, attempt_meter = attempt(once, partition.file, partition.access, forget=forget)
    if meter is not None and attempt_meter is not None:
        meter.adopt(attempt_meter)
    again = []
    if meter is not None and len(events.branches) < len(branches):
        delivered = events.contents.keys() | meter.enough()
        again = [branch for branch in branches if branch.name not in delivered]
    if again:
        more = _read_file(partition, again, None, None).contents
        contents = {**events.contents, **more}
        present = tuple(branch for branch in branches if branch.name in contents)
        events = replace(events, branches=present, contents=contents)
    return events


def open_partition(partition: Partition) -> OpenTree | OpenTable:
    """The open tree or table of a partition; raises as `read` does."""

    def once(location: str) -> OpenTree | OpenTable:
        opened = _open_at(location, partition)
        if isinstance(opened, OpenTree):
            _require_entries(opened, partition)
        return opened

    return attempt(once, partition.file, partition.access, forget=forget)


def _open_at(location: str, partition: Partition) -> OpenTree | OpenTable:
    opened = open_data(partition.file, location, partition.tree, partition.access)
    if partition.stamp and not is_same(partition.stamp, opened.stamp) and is_remote(location):
        forget(location)  # it was opened before it changed, and was planned afterwards
        opened = open_data(partition.file, location, partition.tree, partition.access)
    if isinstance(opened, OpenTable):
        _require_unchanged(partition, opened.stamp)
        return opened
    if opened.uuid != partition.uuid:
        raise _changed(partition, f"UUID {opened.uuid}, expected {partition.uuid}")
    _require_unchanged(partition, opened.stamp)
    return opened


def _require_entries(opened: OpenTree, partition: Partition) -> None:
    num_entries = opened.tree.num_entries
    if num_entries < partition.entry_stop:
        what = f"with {num_entries} entries, expected one with at least {partition.entry_stop}"
        raise _changed(partition, f"tree {partition.tree!r} {what}")


def _require_unchanged(partition: Partition, stamp: str) -> None:
    if partition.stamp and not is_same(partition.stamp, stamp):
        raise _changed(partition, f"size and time or version {stamp}, expected {partition.stamp}")


def _changed(partition: Partition, how: str) -> UnreadableFileError:
    """A file that is another one by now: what was planned of it cannot be read any more."""
    reason = f"has changed since it was planned: {how}"
    return UnreadableFileError.in_tree(partition, f"{partition.file} {reason}", reason=reason)


def _read(
    opened: OpenTree,
    partition: Partition,
    branches: Sequence[Branch],
    meter: Meter | None,
    keep: Collection[str] | None,
) -> Events:
    tables = {} if partition.places is None else partition.places.tables()
    is_planned = all(_is_table_of(tables.get(branch.name), branch) for branch in branches)
    arrays = None
    try:
        if partition.places is not None and is_planned:  # which leaves the tree unparsed
            agreement = Agreement()
            arrays = _read_tables(opened, partition, branches, tables, agreement, meter, keep)
        if arrays is None:
            arrays = _look(opened, partition, branches, meter, keep)
    except DisagreementError as error:
        of = {branch.name: branch.collection for branch in branches}
        raise error.within(partition, str(of[error.second])) from None
    present = tuple(branch for branch in branches if branch.name in arrays.contents)
    return Events(len(partition), present, arrays.contents, arrays.offsets)


class Arrays(NamedTuple):
    """Contents by branch, and offsets by collection."""

    contents: dict[str, NDArray[Any]]
    offsets: dict[str, NDArray[np.int64]]


def _look(
    opened: OpenTree,
    partition: Partition,
    branches: Sequence[Branch],
    meter: Meter | None,
    keep: Collection[str] | None,
) -> Arrays:
    """What a look into the tree finds of the branches."""
    _require_entries(opened, partition)
    sources = _sources(opened, partition, branches)
    agreement = Agreement()
    tables = opened.tables_of(sources)
    arrays = None
    if tables:
        arrays = _read_tables(opened, partition, branches, tables, agreement, meter, keep)
    of_uproot = [each for each in sources if arrays is None or each.branch.name not in tables]
    arrays = arrays or Arrays({}, {})
    read_by_uproot(opened.catalogue, partition, of_uproot, *arrays, agreement)
    return arrays


def _is_table_of(table: BasketTable | None, branch: Branch) -> bool:
    """True when a table that was planned holds values of the branch's kind and type."""
    return (
        table is not None
        and table.is_jagged == (branch.collection is not None)
        and is_kept_as(table.dtype, branch.dtype)
    )


def _read_tables(
    opened: OpenTree,
    partition: Partition,
    branches: Sequence[Branch],
    tables: Mapping[str, BasketTable],
    agreement: Agreement,
    meter: Meter | None,
    keep: Collection[str] | None,
) -> Arrays | None:
    """What the tables' baskets hold; None when only uproot can read them."""
    names = {branch.name for branch in branches}
    counters = {tables[name].counter for name in names if name in tables}
    tables = {name: table for name, table in tables.items() if name in names or name in counters}
    try:
        read_contents, by_counter = read_baskets(
            opened.source,
            tables,
            partition.entry_start,
            partition.entry_stop,
            branches,
            meter,
            keep,
            own_bytes=lambda: opened.own_bytes,
            agreement=agreement,
        )
    except NoOffsetsError:
        first, last = whole_baskets(tables, partition.entry_start, partition.entry_stop)
        if (first, last) == (partition.entry_start, partition.entry_stop):
            return None
        wide = replace(partition, entry_start=first, entry_stop=last)
        of_wide = _read_tables(opened, wide, branches, tables, Agreement(), None, None)
        return None if of_wide is None else _within(of_wide, branches, wide, partition)
    except UnsupportedBasketError as reason:
        logger.info("%s is read by uproot: %s", partition, reason)
        return None
    arrays = Arrays({}, {})
    for branch in branches:
        table = tables.get(branch.name)
        if table is not None:
            if branch.name in read_contents:
                values = read_contents[branch.name]
                arrays.contents[branch.name] = values.astype(branch.dtype, copy=False)
            if branch.collection is not None:
                arrays.offsets[branch.collection] = by_counter[table.counter or branch.name]
    return arrays


def _within(
    arrays: Arrays, branches: Sequence[Branch], wide: Partition, partition: Partition
) -> Arrays:
    """The entries of a partition, of the arrays of a wider one."""
    present = tuple(branch for branch in branches if branch.name in arrays.contents)
    first = wide.entry_start
    whole = Events(len(wide), present, *arrays)
    cut = between(whole, partition.entry_start - first, partition.entry_stop - first)
    return Arrays(dict(cut.contents), dict(cut.offsets))


def _sources(opened: OpenTree, partition: Partition, branches: Sequence[Branch]) -> list[Source]:
    """Where the branches stand, once they are what the plan says."""
    catalogue = opened.catalogue
    sources = []
    for branch in branches:
        source = catalogue.sources.get(branch.name)
        # Which collection it is in, only the plan knows.
        planned = branch.kind, branch.dtype
        if source is None or (source.branch.kind, source.branch.dtype) != planned:
            actual = catalogue.left_out.get(branch.name, "missing")
            if source is not None:
                actual = source.branch.described()
            raise DataError.in_tree(
                partition,
                f"branch {branch.name!r} is {actual} in tree {partition.tree!r} of "
                f"{partition.file}; it was planned as {branch.described()}",
                branch=branch.name,
            )
        sources.append(replace(source, branch=branch))
    return sources
