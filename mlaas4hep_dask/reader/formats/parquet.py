"""Parquet files, read by row group."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from mlaas4hep_dask.errors import DataError
from mlaas4hep_dask.reader.access import heard, is_remote
from mlaas4hep_dask.reader.joins import HEAD
from mlaas4hep_dask.reader.paced import BLOCK, PacedFile
from mlaas4hep_dask.reader.partition import Partition
from mlaas4hep_dask.reader.stamp import with_content
from mlaas4hep_dask.reader.tables import Content, OpenTable, open_remote

BATCH = 65_536  # rows of a row group that are decoded at once


class Table(OpenTable):
    """An open Parquet file."""

    def begin(self) -> None:
        """Read the footer."""
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
        self._groups = list(map(self._metadata.row_group, range(self._metadata.num_row_groups)))
        self._schema = self._metadata.schema.to_arrow_schema()
        self.learn(self._schema)
        # Columns of the file in the order of a walk through the schema, depth first.
        paths = [path for f in self._schema for path in _all_paths((f.name,), f.type)]
        self._leaf_columns = dict(zip(paths, range(self._metadata.num_columns), strict=True))

    def _open(self) -> Any:
        if not is_remote(self.location):
            # Not mapped: a file that becomes shorter would end the process with a bus error.
            return pa.OSFile(self.location)
        file = open_remote(self.location, self.access, block_size=BLOCK)
        return PacedFile(file, self.access.pace.answer_bytes)

    def _columns(self, names: Sequence[str]) -> list[str]:
        schema = self._metadata.schema
        return [schema.column(self._leaf_columns[self.leaves[name].path]).path for name in names]

    def count(self) -> Content:
        """As `OpenTable.count`."""
        groups, num_entries = self._groups, self._metadata.num_rows
        sizes = {}
        for name, leaf in self.leaves.items():
            column_chunks = (group.column(self._leaf_columns[leaf.path]) for group in groups)
            size = sum(column.total_uncompressed_size for column in column_chunks)
            sizes[name] = size / max(num_entries, 1)
        ends = accumulate(group.num_rows for group in groups)
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
        ends = np.cumsum([0, *(group.num_rows for group in self._groups)])
        first = int(np.searchsorted(ends, start, side="right")) - 1
        last = int(np.searchsorted(ends, stop, side="left"))
        place = int(ends[first])
        slices = []
        columns = self._columns(names)
        with self._open() as source:
            whole = pq.ParquetFile(
                source, metadata=self._metadata, pre_buffer=is_remote(self.location)
            )
            schema = pa.schema([self._schema.field(name) for name in self.tops(names)])
            groups = list(range(first, last)) if start < stop else []
            for batch in whole.iter_batches(
                batch_size=BATCH, row_groups=groups, columns=columns, use_threads=False
            ):
                heard()
                low, high = max(start - place, 0), min(stop - place, len(batch))
                if low < high:
                    slices.append(batch.slice(low, high - low))
                place += len(batch)
                if place >= stop:
                    break
        if not slices:
            return schema.empty_table()
        return pa.Table.from_batches(slices)


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
