"""Text tables: CSV and JSON lines in pieces of whole lines."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.json as pa_json
import xxhash

from mlaas4hep_dask.events.events import offsets_of

BLOCK = 1 << 24  # bytes; the longest line that pyarrow reads
CHANGED_TYPE = " changed from "  # pyarrow calls that a parse error of JSON, too
_NUMBER = r"[-+]?(?:\d+\.?\d*(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?|nan|inf|NaN|Infinity)"
_LIST = re.compile(rf"^\s*\[\s*(?:{_NUMBER}(?:[\s,;]+{_NUMBER})*)?\s*\]\s*$")
_INTEGERS = re.compile(r"^[\s\[\]\d,;+-]*$")


class TextError(Exception):
    """A text is not the table it should be."""


def is_broken(error: Exception) -> bool:
    """True if a row cannot be told from the next, as at the end of a text that was cut short."""
    return "parse error" in str(error) and CHANGED_TYPE not in str(error)


class Lines(NamedTuple):
    """Lines of a text: a hash of all of it, and where some of them begin."""

    hash: str
    num_entries: int
    lines: tuple[tuple[int, int], ...]  # (entries before, byte), ascending; the last ends it


def count_lines(
    source: Any, data_start: int, heard: Callable[[], None], *, piece_bytes: int
) -> Lines:
    """Count the lines that are not blank; ``data_start`` is the byte after the header."""
    digest = xxhash.xxh3_128()
    lines = [(0, data_start)]
    entries = 0
    base = 0
    began = data_start  # of the line that is being read
    last = b""
    while piece := source.read(piece_bytes):
        heard()
        digest.update(piece)
        ends = np.flatnonzero(np.frombuffer(piece, dtype=np.uint8) == 10) + base
        ends = ends[ends >= data_start]
        if ends.size:
            lengths = np.diff(ends, prepend=began - 1) - 1
            blank = lengths == 0
            for number in np.flatnonzero(lengths == 1):
                place = int(ends[number]) - 1 - base
                character = piece[place : place + 1] if place >= 0 else last
                blank[number] = character == b"\r"
            entries += int(ends.size - blank.sum())
            began = int(ends[-1]) + 1
            lines.append((entries, began))
        base += len(piece)
        last = piece[-1:]
    if base > began and not (base == began + 1 and last == b"\r"):
        entries += 1
    lines.append((entries, max(base, data_start)))
    # Where nothing but blank lines lies between two places, the first would do for both.
    first_lines = dict(reversed(lines[:-1]))
    places = [*sorted(first_lines.items()), lines[-1]]
    if len(places) > 2 and places[-2][0] == places[-1][0]:
        del places[-2]
    return Lines(digest.hexdigest(), entries, tuple(places))


def _whole_lines(head: bytes, start: int, *, is_all: bool) -> bytes:
    """The lines after byte ``start`` that are complete in the first piece of a text."""
    end = head.rfind(b"\n") + 1
    return head[start:] if is_all or end <= start else head[start:end]


class Text(Protocol):
    """What parses the lines of a text as a table.

    ``head`` are the first whole lines, from byte ``data_start`` on, ``schema`` are the columns.
    """

    data_start: int
    head: bytes
    schema: Any

    def parse(self, content: bytes, columns: Sequence[str]) -> Any:
        """An Arrow table of some columns of whole lines."""


class Csv:
    """Columns of a CSV text with a header; a column of ``[1.5, 2]`` holds lists."""

    def __init__(self, head: bytes, delimiter: str, types: dict[str, str], *, is_all: bool) -> None:
        self._delimiter = delimiter
        mark = 3 if head.startswith(b"\xef\xbb\xbf") else 0
        end = head.find(b"\n")
        header = head[mark : end if end >= 0 else len(head)]
        try:
            line = header.decode("utf-8").strip("\r")
        except UnicodeDecodeError as error:
            raise TextError(f"not a UTF-8 text ({error.reason})") from None
        if not line:
            raise TextError("the header is missing: the first line names the columns")
        self.names = [name.strip() for name in next(csv.reader([line], delimiter=delimiter))]
        repeated = {name for name in self.names if self.names.count(name) > 1}
        if repeated:
            raise TextError(f"two columns are called {sorted(repeated)[0]!r}")
        if all(re.fullmatch(_NUMBER, name) for name in self.names):
            raise TextError("the first line holds numbers, expected the names of the columns")
        self.data_start = end + 1 if end >= 0 else len(head)
        self.head = _whole_lines(head, self.data_start, is_all=is_all)
        self._types = {n: pa.from_numpy_dtype(np.dtype(t)) for n, t in types.items()}
        self._lists: dict[str, Any] = {}
        inferred = self._table(self.head, self.names, {})
        fields = []
        for field in inferred.schema:
            type_ = field.type
            if pa.types.is_string(type_) and (inner := self._list_type(inferred[field.name])):
                self._lists[field.name] = self._types.get(field.name, inner)
                type_ = pa.list_(self._lists[field.name])
            elif pa.types.is_null(type_) or not pa.types.is_string(type_):
                type_ = self._types.get(field.name, type_)
            fields.append(pa.field(field.name, type_))
        self.schema = pa.schema(fields)

    @staticmethod
    def _list_type(column: Any) -> Any:
        texts = [value for value in column.slice(0, 1000).to_pylist() if value]
        if not texts or not all(_LIST.match(value) for value in texts):
            return None
        whole = all(_INTEGERS.match(value) for value in texts)
        has_values = any(re.search(r"\d", value) for value in texts)
        return pa.int64() if whole and has_values else pa.float64()

    def _table(self, content: bytes, columns: Sequence[str], types: dict[str, Any]) -> Any:
        if not content.strip():
            return pa.table({n: pa.array([], types.get(n, pa.null())) for n in columns})
        return pa_csv.read_csv(
            pa.BufferReader(content),
            read_options=pa_csv.ReadOptions(
                column_names=self.names, use_threads=False, block_size=BLOCK
            ),
            parse_options=pa_csv.ParseOptions(delimiter=self._delimiter),
            convert_options=pa_csv.ConvertOptions(
                include_columns=list(columns), column_types=types, strings_can_be_null=True
            ),
        )

    def parse(self, content: bytes, columns: Sequence[str]) -> Any:
        """An Arrow table of some columns of whole lines."""
        types = {
            name: pa.string() if name in self._lists else self.schema.field(name).type
            for name in columns
        }
        table = self._table(content, columns, types)
        for name in columns:
            if name in self._lists:
                place = table.schema.get_field_index(name)
                lists = _lists(table[name].combine_chunks(), self._lists[name], name)
                table = table.set_column(place, name, lists)
        return table


def _lists(column: Any, type_: Any, name: str) -> Any:
    inner = pc.utf8_trim_whitespace(column)
    good = pc.match_substring_regex(inner, r"^\[[^\[\]]*\]$")
    if not pc.all(good, skip_nulls=True, min_count=0).as_py():
        bad = inner.filter(pc.invert(good))[0].as_py()
        raise TextError(f"column {name!r} holds {bad!r}, expected a list such as [1.5, 2]")
    inner = pc.utf8_trim(inner, "[] \t")
    items = pc.split_pattern_regex(inner, r"[\s,;]+")
    empty = pc.equal(inner, "")
    lengths = pc.if_else(empty, 0, pc.list_value_length(items))
    flat = items.flatten()
    flat = flat.filter(pc.not_equal(flat, ""))
    ends = offsets_of(pc.fill_null(lengths, 0).to_numpy(zero_copy_only=False))
    if column.null_count:
        raise TextError(f"column {name!r} has {column.null_count} empty cells, write [] there")
    if ends[-1] != len(flat):
        raise TextError(f"column {name!r} has a list with an empty place")
    try:
        return pa.LargeListArray.from_arrays(pa.array(ends), flat.cast(type_))
    except pa.ArrowInvalid as error:
        raise TextError(f"column {name!r}: {error}") from error


class JsonLines:
    """Columns of a text with one JSON object per line."""

    def __init__(self, head: bytes, types: dict[str, str], *, is_all: bool) -> None:
        self.data_start = 3 if head.startswith(b"\xef\xbb\xbf") else 0
        self.head = _whole_lines(head, self.data_start, is_all=is_all)
        self._types = {n: pa.from_numpy_dtype(np.dtype(t)) for n, t in types.items()}
        if self.head.lstrip()[:1] == b"[":
            raise TextError("expected one JSON object per line, found a list around all of them")
        try:
            schema = self._table(self.head, None).schema
        except pa.ArrowInvalid as error:
            raise TextError(str(error)) from error
        self.schema = pa.schema([pa.field(f.name, self._retyped(f.name, f.type)) for f in schema])

    def _retyped(self, name: str, type_: Any) -> Any:
        """The type with the user's types at its leaves."""
        if pa.types.is_struct(type_):
            return pa.struct(
                [pa.field(m.name, self._retyped(f"{name}_{m.name}", m.type)) for m in type_]
            )
        if pa.types.is_list(type_):
            return pa.list_(self._retyped(name, type_.value_type))
        return self._types.get(name, type_)

    @staticmethod
    def _table(content: bytes, schema: Any) -> Any:
        if not content.strip():
            return pa.schema([] if schema is None else schema).empty_table()
        unexpected = "infer" if schema is None else "ignore"
        return pa_json.read_json(
            io.BytesIO(content),
            read_options=pa_json.ReadOptions(use_threads=False, block_size=BLOCK),
            parse_options=pa_json.ParseOptions(
                explicit_schema=schema, unexpected_field_behavior=unexpected
            ),
        )

    def parse(self, content: bytes, columns: Sequence[str]) -> Any:
        """An Arrow table of some columns of whole lines."""
        return self._table(content, pa.schema([self.schema.field(name) for name in columns]))
