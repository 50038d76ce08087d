"""Texts as tables: read by line, uncompressed on the way."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import xxhash

from mlaas4hep_dask.errors import DataError, UnreadableFileError
from mlaas4hep_dask.reader import text
from mlaas4hep_dask.reader.access import heard, is_remote, suffix_of
from mlaas4hep_dask.reader.joins import HEAD
from mlaas4hep_dask.reader.partition import Partition
from mlaas4hep_dask.reader.stamp import with_content
from mlaas4hep_dask.reader.tables import Content, OpenTable, open_remote

_UNPACK: dict[str, Any] = {
    "gzip": fsspec.compression.compr["gzip"],
    "bz2": fsspec.compression.compr["bz2"],
    "zstd": lambda source: pa.CompressedInputStream(pa.PythonFile(source, "r"), "zstd"),
}


class TextTable(OpenTable):
    """An open text, which may be compressed."""

    @abstractmethod
    def parser(self, head: bytes, suffix: str, *, is_all: bool) -> text.Text:
        """What parses the lines, by the first of them, which may be all that there are.

        Raises
        ------
        TextError, ArrowInvalid
            When they are no table.
        """

    def begin(self) -> None:
        """Read the first lines."""
        suffix, compression = suffix_of(self.file)
        self._compression = compression
        head, most = b"", self.access.pace.text_bytes
        with self._open() as source:
            while len(head) < most and (piece := source.read(most - len(head))):
                head += piece
                heard()
        try:
            self._text = self.parser(head, suffix, is_all=len(head) < most)
        except (pa.ArrowInvalid, text.TextError) as error:
            kind = DataError if text.CHANGED_TYPE in str(error) else UnreadableFileError
            raise kind(f"{self.file}: {error}", file=self.file, reason=str(error)) from error
        self.learn(self._text.schema)
        if is_remote(self.location):
            self.stamp = with_content(self.stamp, xxhash.xxh3_128_hexdigest(head))

    @contextmanager
    def _open(self, start: int = 0) -> Iterator[Any]:
        """The uncompressed text from a byte on."""
        with ExitStack() as stack:
            if is_remote(self.location):
                source = stack.enter_context(open_remote(self.location, self.access))
            else:
                source = stack.enter_context(Path(self.location).open("rb"))
            if self._compression is None:
                source.seek(start)
            else:
                source = stack.enter_context(_UNPACK[self._compression](source))
                while start:
                    passed = len(source.read(min(start, self.access.pace.text_bytes)))
                    heard()
                    if not passed:
                        raise ValueError("the file ends before the lines that were planned")
                    start -= passed
            yield source

    def count(self) -> Content:
        """As `OpenTable.count`."""
        with self._open() as source:
            piece_bytes = self.access.pace.text_bytes
            all_lines = text.count_lines(
                source, self._text.data_start, heard, piece_bytes=piece_bytes
            )
        lines, num_entries = all_lines.lines, all_lines.num_entries
        size = lines[-1][1] - lines[0][1]
        per_column = size / max(num_entries, 1) / max(len(self.leaves), 1)
        clusters = tuple(entry for entry, _ in lines[1:])
        sizes = dict.fromkeys(self.leaves, per_column)
        return Content(all_lines.hash, num_entries, clusters, lines, sizes)

    def _head(self, columns: list[str]) -> Any:
        return self._parsed(self._text.head, columns).slice(0, HEAD)

    def _rows(self, partition: Partition, names: Sequence[str]) -> Any:
        place = partition.text
        if place is None:
            raise DataError(f"{partition} was not planned as text", file=self.file)
        pieces = []
        remaining = place.byte_stop - place.byte_start
        with self._open(place.byte_start) as source:
            while remaining:
                piece = source.read(min(remaining, self.access.pace.text_bytes))
                heard()
                if not piece:
                    raise ValueError("the file ends before the lines that were planned")
                pieces.append(piece)
                remaining -= len(piece)
        rows = self._parsed(b"".join(pieces), self.tops(names))
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
