"""Reads a journal, while a run writes to it or after the run was killed."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from mlaas4hep_dask.errors import RecordError
from mlaas4hep_dask.journal.lines import numbered
from mlaas4hep_dask.journal.records import VERSION, End, Epoch, Record, Run, from_json
from mlaas4hep_dask.journal.text import text

JOURNAL = "journal.jsonl"
STARTING = "starting.jsonl"  # until a process knows whether it goes on with what is there

R = TypeVar("R")


@dataclass(frozen=True)
class Entry:
    """A record, and when it was written."""

    time: datetime
    record: Record


@dataclass(frozen=True)
class Records:
    """What a journal holds.

    Parameters
    ----------
    entries : tuple of Entry
        In the order in which they were written.
    cut : tuple of int
        Numbers, from 1, of the lines that are no whole record: a process was killed while it
        wrote them, or the last one is being written.
    """

    entries: tuple[Entry, ...]
    cut: tuple[int, ...] = ()

    def __iter__(self) -> Iterator[Record]:
        return (entry.record for entry in self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def of(self, kind: type[R]) -> list[R]:
        """The records of one class, such as `Epoch`."""
        return [record for record in self if isinstance(record, kind)]

    @property
    def status(self) -> str:
        """How the last process ended; ``running`` if it has not, or was killed."""
        last = [record for record in self if isinstance(record, Run | End)][-1:]
        return last[0].status if last and isinstance(last[0], End) else "running"

    @property
    def epochs(self) -> list[Epoch]:
        """The epochs that count, in their order: of one that was trained twice the last."""
        return [each for _, each in sorted({e.epoch: e for e in self.of(Epoch)}.items())]

    def to_text(self) -> str:
        """A line for each record, with its time in UTC."""
        lines = [f"{_clock(entry.time)}  {text(entry.record)}" for entry in self.entries]
        if self.cut:
            numbers = ", ".join(map(str, self.cut))
            lines.append(f"(no whole record: line {numbers}, cut when a process was killed)")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(self.to_text())}</pre>"


def read(path: str | Path) -> Records:
    """The records of a journal.

    Parameters
    ----------
    path : str or Path
        The file, or the run directory that holds it.

    Raises
    ------
    RecordError
        When there is none, or a later version of this package wrote it.
    """
    path = Path(path)
    file = path / JOURNAL if path.is_dir() else path
    try:
        content = file.read_bytes()
    except OSError as error:
        raise RecordError(
            f"{file} cannot be read ({error.strerror}), expected the journal of a run",
            file=str(file),
        ) from error
    entries, cut = entries_of(content, file)
    return Records(tuple(entries), tuple(cut))


def entries_of(content: bytes, file: Path) -> tuple[list[Entry], list[int]]:
    """The records in a part of a journal, and the numbers, from 1, of lines that are none."""
    entries: list[Entry] = []
    cut: list[int] = []
    for number, value in numbered(content):
        try:
            entries.append(_entry(value or {}, f"{file}, line {number}", file))
        except (ValueError, TypeError):
            cut.append(number)
    return entries, cut


def _entry(value: Mapping[str, Any], where: str, file: Path) -> Entry:
    version = value.get("version")
    if isinstance(version, int) and version > VERSION:
        raise RecordError(
            f"{where}: the record is of version {version}, and this package reads up to {VERSION}; "
            "update mlaas4hep_dask",
            file=str(file),
        )
    return Entry(datetime.fromisoformat(str(value.get("time"))), from_json(value))


def _clock(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")
