"""Writes events as a Parquet file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mlaas4hep_dask.events import Branch, Events
from mlaas4hep_dask.writer.sink import NOTE


class ParquetSink:
    """A new Parquet file, one row group for each `append`.

    Jagged branches are lists. Nothing is null: a missing value is NaN. The unit and the
    collection of a branch are in its field's metadata.

    Parameters
    ----------
    path : Path
        The file; an existing one is overwritten.
    branches : tuple of Branch
        Flat and jagged branches of numbers.
    """

    def __init__(self, path: Path, branches: tuple[Branch, ...]) -> None:
        self._schema = pa.schema([_field(branch) for branch in branches])
        self._writer = pq.ParquetWriter(path, self._schema, compression="zstd")
        self._is_empty = True

    def append(self, events: Events) -> None:
        """Write some events."""
        collections = {branch.name: branch.collection for branch in events.branches}
        arrays = []
        for field in self._schema:
            values = pa.array(events.contents[field.name])
            collection = collections[field.name]
            if collection is not None:
                offsets = pa.array(events.offsets[collection].astype(np.int32))
                values = pa.ListArray.from_arrays(offsets, values, type=field.type)
            arrays.append(values)
        self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._schema))
        self._is_empty = False

    def close(self, note: str | None) -> None:
        """Complete the file, with a text about it."""
        if self._is_empty:  # awkward cannot read a file without a row group
            self._writer.write_table(self._schema.empty_table())
        if note is not None:
            self._writer.add_key_value_metadata({NOTE: note})
        self._writer.close()

    def abandon(self) -> None:
        """Close the file as it is."""
        self._writer.close()


def _field(branch: Branch) -> pa.Field:
    number = pa.from_numpy_dtype(np.dtype(branch.dtype))
    metadata = {
        key: value
        for key, value in (("unit", branch.unit), ("collection", branch.collection))
        if value is not None
    }
    if branch.collection is not None:
        number = pa.list_(pa.field("element", number, nullable=False))
    return pa.field(branch.name, number, nullable=False, metadata=metadata or None)
