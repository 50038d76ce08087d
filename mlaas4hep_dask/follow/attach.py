"""Prints what a run prints on its console, from its records, until it ends."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from mlaas4hep_dask.command import FAULT, SUCCESS
from mlaas4hep_dask.detached.head import records_folder
from mlaas4hep_dask.errors import RecordError
from mlaas4hep_dask.follow.page import again, fate
from mlaas4hep_dask.follow.standing import Standing, look
from mlaas4hep_dask.journal import Caution, End, Entry, Record, Run, Stage, Tail, text
from mlaas4hep_dask.run.console import RunConsole

POLL = 0.5  # seconds between two looks at the journal
LOOK = 5.0  # between two at the process, while nothing is told
KILLED = 137  # exit status of a process that was killed, as of a shell
INTERRUPTED = 130
METRICS = "metrics.json"


class AttachedConsole(RunConsole):
    """Prints the records of a run that another process works on."""

    def __init__(self) -> None:
        self._now = 0.0
        super().__init__(clock=lambda: self._now)

    def hear_entry(self, entry: Entry) -> None:
        """Print a record, at the time at which it was told."""
        self._now = entry.time.timestamp()
        self.hear(entry.record)

    def hear(self, record: Record) -> None:
        """Print a record; warnings of loggers too, which the run's own process printed."""
        match record:
            case Run():
                self.say(text(record))
            case Caution() if record.logger:
                click.echo(f"WARNING {record.logger}: {record.text}", err=True)
        super().hear(record)


def attach(folder: Path, *, last_stage: bool) -> int:
    """Print what a run tells until it ends; its exit status.

    Parameters
    ----------
    folder : Path
        The run directory.
    last_stage : bool
        Begin with the last stage, and not with the process.
    """
    console, tail = AttachedConsole(), Tail(records_folder(folder))
    standing = look(folder)
    # Of what has begun since, and not of the process before it, which has ended.
    begin = standing.head.time if standing.head is not None and standing.run is None else 0.0
    first, last_words, looked = True, "", 0.0
    while True:
        entries = tail.new()
        if first:
            entries = _begun_after(entries, begin)
        if first and entries:
            entries, first = _from_last(entries, Stage if last_stage else Run), False
        for entry in entries:
            console.hear_entry(entry)
            if isinstance(entry.record, End) and entry.record.status != "moved":
                return _ended(console, entry.record, look(folder))
        if not entries and standing.state == "killed":  # and all that it told is printed
            console.close()
            click.echo(f"error: {fate(standing, datetime.now(UTC))}", err=True)
            return KILLED
        if not entries and time.monotonic() - looked > LOOK:
            looked = time.monotonic()
            with suppress(RecordError):  # it is moved just now
                standing = look(folder)
            if standing.state in ("queued", "silent"):
                last_words = _say_once(fate(standing, datetime.now(UTC)), last_words)
        time.sleep(POLL)


def _ended(console: AttachedConsole, end: End, standing: Standing) -> int:
    """Print how a run has ended; its exit status."""
    if end.status == "complete":
        summary = read_summary(standing.folder)
        if summary is not None:
            console.conclude(summary, standing.folder.absolute())
        return SUCCESS
    if end.status == "interrupted":
        click.echo(f"interrupted; {again(standing)}", err=True)
        return INTERRUPTED if end.exit_status is None else end.exit_status
    click.echo(f"error: {end.error}", err=True)
    return FAULT if end.exit_status is None else end.exit_status


def read_summary(folder: Path) -> dict[str, Any] | None:
    """The numbers of a run that has ended; None when they are not here."""
    try:
        summary = json.loads((folder / METRICS).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return summary if isinstance(summary, dict) else None


def _say_once(words: str, before: str) -> str:
    """Say how a run stands, unless it was said before; what was said, without its numbers."""
    plain = "".join(letter for letter in words if not letter.isdigit())
    if plain != before:
        click.echo(words, err=True)
    return plain


def _begun_after(entries: Sequence[Entry], begin: float) -> list[Entry]:
    """The entries of processes that began after a time."""
    for place, entry in enumerate(entries):
        if isinstance(entry.record, Run) and entry.time.timestamp() >= begin:
            return list(entries[place:])
    return []


def _from_last(entries: Sequence[Entry], kind: type) -> list[Entry]:
    """The entries from the last record of a kind on; from the last process on, at least."""
    places = [place for place, each in enumerate(entries) if isinstance(each.record, kind | Run)]
    return list(entries[places[-1] if places else 0 :])
