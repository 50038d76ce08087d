"""Tables: Parquet, CSV and JSON lines, as pyarrow reads them."""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash
from numpy.typing import NDArray

from mlaas4hep_dask.errors import DataError, UnreadableFileError, did_you_mean
from mlaas4hep_dask.events.events import Branch, Events
from mlaas4hep_dask.reader import text
from mlaas4hep_dask.reader.access import Access, heard, is_remote, suffix_of
from mlaas4hep_dask.reader.columns import (
    Leaf,
    UnfitColumnError,
    branches_of,
    leaves_of,
    retyped,
    values_of,
)
from mlaas4hep_dask.reader.joins import HEAD, Agreement, DisagreementError, Joined, joined
from mlaas4hep_dask.reader.paced import BLOCK, PacedFile
from mlaas4hep_dask.reader.partition import Partition
from mlaas4hep_dask.reader.stamp import with_content

_UNPACK: dict[str, Any] = {
    "gzip": fsspec.compression.compr["gzip"],
    "bz2": fsspec.compression.compr["bz2"],
    "zstd": lambda source: pa.CompressedInputStream(pa.PythonFile(source, "r"), "zstd"),
}
BATCH = 65_536  # rows of a row group that are decoded at once


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
    def known(self) -> Joined:
        """The columns that can be inputs, with their collections."""
        try:
            return joined(branches_of(self.leaves), self.access.collections, self._multiplicities)
        except UnfitColumnError as error:
            raise DataError(f"{error} in {self.file}", file=self.file) from error

    def _multiplicities(self, names: list[str]) -> dict[str, NDArray[np.int64]]:
        """By column, of some: where the objects of each of the first rows begin."""
        rows = self._head(names)
        found = {}
        for name in names:
            leaf = self.leaves[name]
            _, offsets = values_of(rows[leaf.path[0]], leaf, name)
            assert offsets is not None  # those of lists alone are asked for
            found[name] = offsets
        return found

    @abstractmethod
    def begin(self, format_: str) -> None:
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
                values, own = values_of(rows[leaf.path[0]], leaf, branch.name)
            except UnfitColumnError as error:
                raise DataError(
                    f"{error} in {partition}", file=self.file, branch=branch.name
                ) from error
            contents[branch.name] = values
            if own is None or branch.collection is None:
                continue
            try:
                offsets[branch.collection] = agreement.of(branch, own)
            except DisagreementError as error:
                raise error.within(partition, branch.collection) from None
        return Events(len(partition), tuple(branches), contents, offsets)

    def _learn(self, schema: Any) -> None:
        found = retyped(leaves_of(schema), dict(self.access.types))
        self.leaves = {name: leaf for name, leaf in found.items() if isinstance(leaf, Leaf)}
        self.left_out = {name: why for name, why in found.items() if isinstance(why, str)}


def open_table(file: str, location: str, format_: str, access: Access, stamp: str) -> OpenTable:
    """The open table of a location, its first rows or its footer read."""
    kind = _ParquetTable if format_ == "parquet" else _TextTable
    table: OpenTable = kind(file, location, stamp, access)
    table.begin(format_)
    return table


class _ParquetTable(OpenTable):
    def begin(self, format_: str) -> None:
        del format_
        with self._open() as source:
            source.seek(0, 2)
            size = source.tell()
            source.seek(max(size - 8, 0))
            end = source.read(8)
            heard()
            if len(end) < 8 or end[4:] != b"PAR1":
                raise ValueError("not a Parquet file: it does not end with PAR1")
            footer = struct.unpack("<I", end[:4])[0] + 8
            if footer > size:
                raise ValueError("the Parquet footer is longer than the file")
            source.seek(size - footer)
            # The footer has the place, size and statistics of every piece of data.
            self._uuid = xxhash.xxh3_128_hexdigest(source.read(footer) + struct.pack("<q", size))
            heard()
            source.seek(0)
            self._metadata = pq.read_metadata(source)
        if is_remote(self.location):
            self.stamp = with_content(self.stamp, self._uuid)
        self._schema = self._metadata.schema.to_arrow_schema()
        self._learn(self._schema)
        # Columns of the file in the order of a walk through the schema, depth first.
        paths = [path for f in self._schema for path in _all_paths((f.name,), f.type)]
        self._leaf_columns = dict(zip(paths, range(self._metadata.num_columns), strict=True))

    def _open(self) -> Any:
        if not is_remote(self.location):
            # Not mapped: a file that becomes shorter would end the process with a bus error.
            return pa.OSFile(self.location)
        return PacedFile(_open_remote(self.location, self.access, block_size=BLOCK))

    def _columns(self, names: Sequence[str]) -> list[str]:
        schema = self._metadata.schema
        return [schema.column(self._leaf_columns[self.leaves[name].path]).path for name in names]

    def count(self) -> Content:
        metadata = self._metadata
        groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
        ends = np.cumsum([group.num_rows for group in groups]).tolist()
        num_entries = metadata.num_rows
        sizes = {
            name: sum(
                group.column(self._leaf_columns[leaf.path]).total_uncompressed_size
                for group in groups
            )
            / max(num_entries, 1)
            for name, leaf in self.leaves.items()
        }
        return Content(self._uuid, num_entries, tuple(ends), (), sizes)

    def _head(self, columns: list[str]) -> Any:
        with self._open() as source:
            whole = pq.ParquetFile(source, metadata=self._metadata)
            batches = whole.iter_batches(
                batch_size=HEAD, columns=self._columns(columns), use_threads=False
            )
            first = next(batches, None)
            if first is None:
                return whole.schema_arrow.empty_table()
            return pa.Table.from_batches([first])

    def _rows(self, partition: Partition, names: Sequence[str]) -> Any:
        if self._uuid != partition.uuid:
            raise DataError(
                f"{self.file} has changed since it was planned: another footer", file=self.file
            )
        start, stop = partition.entry_start, partition.entry_stop
        ends = np.cumsum(
            [
                0,
                *[
                    self._metadata.row_group(i).num_rows
                    for i in range(self._metadata.num_row_groups)
                ],
            ]
        )
        first = int(np.searchsorted(ends, start, side="right")) - 1
        last = int(np.searchsorted(ends, stop, side="left"))
        place = int(ends[first])
        kept = []
        columns = self._columns(names)
        with self._open() as source:
            whole = pq.ParquetFile(
                source, metadata=self._metadata, pre_buffer=is_remote(self.location)
            )
            schema = pa.schema([self._schema.field(name) for name in self._tops(names)])
            groups = list(range(first, last)) if start < stop else []
            for batch in whole.iter_batches(
                batch_size=BATCH, row_groups=groups, columns=columns, use_threads=False
            ):
                heard()
                low, high = max(start - place, 0), min(stop - place, len(batch))
                if low < high:
                    kept.append(batch.slice(low, high - low))
                place += len(batch)
                if place >= stop:
                    break
        if not kept:
            return schema.empty_table()
        return pa.Table.from_batches(kept)

    def _tops(self, names: Sequence[str]) -> list[str]:
        return list(dict.fromkeys(self.leaves[name].path[0] for name in names))


def _all_paths(path: tuple[str, ...], type_: Any) -> list[tuple[str, ...]]:
    """Paths of all leaves, in the order in which Parquet has them."""
    if pa.types.is_struct(type_):
        return [p for member in type_ for p in _all_paths((*path, member.name), member.type)]
    if pa.types.is_map(type_):
        pair = (("key", type_.key_type), ("value", type_.item_type))
        return [p for name, inner in pair for p in _all_paths((*path, name), inner)]
    if hasattr(type_, "value_type") and not pa.types.is_dictionary(type_):
        inner = type_.value_type
        nested = pa.types.is_struct(inner) or pa.types.is_nested(inner)
        return _all_paths(path, inner) if nested else [path]
    return [path]


class _TextTable(OpenTable):
    def begin(self, format_: str) -> None:
        suffix, compression = suffix_of(self.file)
        is_tsv = suffix == ".tsv"
        delimiter = self.access.delimiter or ("\t" if is_tsv else ",")
        self._compression = compression
        head = b""
        with self._open() as source:
            while len(head) < text.PIECE and (piece := source.read(text.PIECE - len(head))):
                head += piece
                heard()
        types = dict(self.access.types)
        reader = text.Csv if format_ == "csv" else text.JsonLines
        try:
            self._text = reader(head, delimiter, types)
        except (pa.ArrowInvalid, text.TextError) as error:
            kind = DataError if text.CHANGED_TYPE in str(error) else UnreadableFileError
            raise kind(f"{self.file}: {error}", file=self.file, reason=str(error)) from error
        self._learn(self._text.schema)
        if is_remote(self.location):
            self.stamp = with_content(self.stamp, xxhash.xxh3_128_hexdigest(head))

    @contextmanager
    def _open(self, start: int = 0) -> Iterator[Any]:
        """The uncompressed text from a byte on."""
        with ExitStack() as stack:
            if is_remote(self.location):
                source = stack.enter_context(_open_remote(self.location, self.access))
            else:
                source = stack.enter_context(Path(self.location).open("rb"))
            if self._compression is None:
                source.seek(start)
            else:
                source = stack.enter_context(_UNPACK[self._compression](source))
                while start:
                    passed = len(source.read(min(start, text.PIECE)))
                    heard()
                    if not passed:
                        raise ValueError("the file ends before the lines that were planned")
                    start -= passed
            yield source

    def count(self) -> Content:
        with self._open() as source:
            found = text.count_lines(source, self._text.data_start, heard)
        size = found.lines[-1][1] - found.lines[0][1]
        per_column = size / max(found.num_entries, 1) / max(len(self.leaves), 1)
        clusters = tuple(entry for entry, _ in found.lines[1:])
        sizes = dict.fromkeys(self.leaves, per_column)
        return Content(found.hash, found.num_entries, clusters, found.lines, sizes)

    def _head(self, columns: list[str]) -> Any:
        return self._parsed(self._text.head, columns).slice(0, HEAD)

    def _rows(self, partition: Partition, names: Sequence[str]) -> Any:
        tops = list(dict.fromkeys(self.leaves[name].path[0] for name in names))
        place = partition.text
        if place is None:
            raise DataError(f"{partition} was not planned as text", file=self.file)
        pieces = []
        left = place.byte_stop - place.byte_start
        with self._open(place.byte_start) as source:
            while left:
                piece = source.read(min(left, text.PIECE))
                heard()
                if not piece:
                    raise ValueError("the file ends before the lines that were planned")
                pieces.append(piece)
                left -= len(piece)
        rows = self._parsed(b"".join(pieces), tops)
        if len(rows) != place.num_entries:
            raise DataError(
                f"{self.file}: {place.num_entries} lines after entry {place.first_entry} hold "
                f"{len(rows)} rows; each row has to be a line of its own, and no line may hold "
                "white space alone",
                file=self.file,
            )
        low = partition.entry_start - place.first_entry
        return rows.slice(low, len(partition))

    def _parsed(self, content: bytes, columns: list[str]) -> Any:
        try:
            return self._text.parse(content, columns)
        except (pa.ArrowInvalid, text.TextError) as error:
            if text.is_broken(error):
                raise UnreadableFileError(
                    f"{self.file}: {error}", file=self.file, reason=str(error)
                ) from error
            raise DataError(
                f"{self.file}: {self._culprit(content, columns)}{error}; the types are those of "
                "the first lines, or of reading.types",
                file=self.file,
            ) from error

    def _culprit(self, content: bytes, columns: list[str]) -> str:
        """The column that cannot be parsed, which pyarrow does not name."""
        for column in columns:
            try:
                self._text.parse(content, [column])
            except (pa.ArrowInvalid, text.TextError):
                return f"column {column!r}: "
        return ""


def _open_remote(location: str, access: Access, **how: Any) -> Any:
    fs, path = fsspec.url_to_fs(
        location.replace("xroot://", "root://", 1), **access.storage_options(location)
    )
    return fs.open(path, "rb", **how)
