"""Tables, as pyarrow reads them; what all of their formats have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from typing import Any, NamedTuple

import fsspec
import numpy as np
from numpy.typing import NDArray

from mlaas4hep_dask.errors import DataError, did_you_mean
from mlaas4hep_dask.events.events import Branch, Events
from mlaas4hep_dask.reader.access import Access
from mlaas4hep_dask.reader.columns import (
    Leaf,
    UnfitColumnError,
    branches_of,
    leaves_of,
    retyped,
    values_of,
)
from mlaas4hep_dask.reader.joins import Agreement, DisagreementError, Joined, joined
from mlaas4hep_dask.reader.partition import Partition


class Content(NamedTuple):
    """What a table holds, for the plan."""

    uuid: str
    num_entries: int
    clusters: tuple[int, ...]
    lines: tuple[tuple[int, int], ...]
    bytes_per_event: Mapping[str, float]


@dataclass
class OpenTable(ABC):
    """A table whose columns are known; the same calls for every format.

    Parameters
    ----------
    file : str
        Its name for errors.
    location : str
        Path or URL.
    stamp : str
        By which a change is noticed.
    """

    file: str
    location: str
    stamp: str
    access: Access
    leaves: dict[str, Leaf] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    @cached_property
    def agreed(self) -> Joined:
        """The columns that can be inputs, with their collections."""
        try:
            return joined(branches_of(self.leaves), self.access.collections, self._multiplicities)
        except UnfitColumnError as error:
            raise DataError(f"{error} in {self.file}", file=self.file) from error

    def _multiplicities(self, names: list[str]) -> dict[str, NDArray[np.int64]]:
        """By column, of some: where the objects of each of the first rows begin."""
        rows = self._head(names)
        by_name = {}
        for name in names:
            leaf = self.leaves[name]
            _, offsets = values_of(rows[leaf.path[0]], leaf, name)
            assert offsets is not None  # those of lists alone are asked for
            by_name[name] = offsets
        return by_name

    @abstractmethod
    def begin(self) -> None:
        """Read the first rows or the footer, and learn the columns."""

    @abstractmethod
    def count(self) -> Content:
        """Its entries and where it can be cut."""

    @abstractmethod
    def _head(self, columns: list[str]) -> Any:
        """The first rows of some columns."""

    @abstractmethod
    def _rows(self, partition: Partition, names: Sequence[str]) -> Any:
        """An Arrow table of the partition's rows, with what the leaves ``names`` need."""

    def read(self, partition: Partition, branches: Sequence[Branch]) -> Events:
        """Events of one partition.

        Raises
        ------
        DataError
            When a column does not hold what the plan says.
        """
        contents: dict[str, NDArray[Any]] = {}
        offsets: dict[str, NDArray[np.int64]] = {}
        names = [branch.name for branch in branches]
        for name in names:
            if name not in self.leaves:
                raise DataError(
                    f"column {name!r} is not in {self.file}{did_you_mean(name, self.leaves)}",
                    file=self.file,
                    branch=name,
                )
        rows = self._rows(partition, names)
        agreement = Agreement()
        for branch in branches:
            leaf = self.leaves[branch.name]
            try:
                values, ends = values_of(rows[leaf.path[0]], leaf, branch.name)
            except UnfitColumnError as error:
                raise DataError(
                    f"{error} in {partition}", file=self.file, branch=branch.name
                ) from error
            contents[branch.name] = values
            if ends is None or branch.collection is None:
                continue
            try:
                offsets[branch.collection] = agreement.of(branch, ends)
            except DisagreementError as error:
                raise error.within(partition, branch.collection) from None
        return Events(len(partition), tuple(branches), contents, offsets)

    def tops(self, names: Sequence[str]) -> list[str]:
        """The columns that hold some leaves."""
        return list(dict.fromkeys(self.leaves[name].path[0] for name in names))

    def learn(self, schema: Any) -> None:
        """Take the columns of an Arrow schema."""
        leaves = retyped(leaves_of(schema), dict(self.access.types))
        self.leaves = {name: leaf for name, leaf in leaves.items() if isinstance(leaf, Leaf)}
        self.left_out = {name: why for name, why in leaves.items() if isinstance(why, str)}


def open_table(file: str, location: str, format_: str, access: Access, stamp: str) -> OpenTable:
    """The open table of a location, its first rows or its footer read.

    Parameters
    ----------
    file, location, access, stamp
        As for `OpenTable`.
    format_ : str
        One of `TABLES`, which is the name of the module that reads it.
    """
    module = import_module(f"mlaas4hep_dask.reader.formats.{format_}")
    table: OpenTable = module.Table(file, location, stamp, access)
    table.begin()
    return table


def open_remote(location: str, access: Access, **how: Any) -> Any:
    """The remote file, as fsspec opens it; ``how`` goes to its file system."""
    fs, path = fsspec.url_to_fs(
        location.replace("xroot://", "root://", 1), **access.storage_options(location)
    )
    return fs.open(path, "rb", **how)
