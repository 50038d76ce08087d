"""How a run stands: at work, over, or gone without a word, as its records tell."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, get_args

from mlaas4hep_dask.detached.head import Head, head_of, records_folder
from mlaas4hep_dask.errors import RecordError, did_you_mean
from mlaas4hep_dask.journal import (
    Entry,
    Outcome,
    Progress,
    Records,
    Run,
    Stage,
    StageEnd,
    birth_of,
    read,
)
from mlaas4hep_dask.journal.read import JOURNAL, STARTING

SILENCE = 600.0  # seconds without a sign of life; the time of a journal is set every minute
RECENT = 0.1  # of the time of a stage, of which its rate is told

State = Literal["queued", "running", "silent", "killed", Outcome]
AT_WORK = ("queued", "running", "silent")


@dataclass(frozen=True)
class Pace:
    """How far the stage at work is.

    Attributes
    ----------
    stage : str
        Its name.
    began : datetime
        When it began.
    events, total : int
        Done, and in all; 0 where that is not known.
    events_per_second : float or None
        Lately.
    end : datetime or None
        When it ends if it goes on so.
    """

    stage: str
    began: datetime
    events: int = 0
    total: int = 0
    events_per_second: float | None = None
    end: datetime | None = None


@dataclass(frozen=True)
class Standing:
    """How a run stands.

    Attributes
    ----------
    folder : Path
        The run directory.
    records : Records
        All that its processes have told, for as long as they worked on the same run.
    state : str
        ``queued`` for a batch job that has not begun; ``running``; ``silent`` without a sign of
        life for long; ``killed`` when the process is gone without a word; or how it has ended.
    sign : datetime or None
        The last sign of life.
    is_here : bool
        The process works on this machine now.
    earlier : str
        How the run stands that lies in the folder, where the last process did not come so far as
        to take it up or move it aside; else empty.
    head : Head or None
        What ``--detach`` has begun, in which it works; None for a run that a terminal has.
    """

    folder: Path
    records: Records
    state: State
    sign: datetime | None = None
    is_here: bool = False
    earlier: str = ""
    head: Head | None = None

    @property
    def run(self) -> Run | None:
        """The process that worked on it last."""
        runs = self.records.of(Run)
        return runs[-1] if runs else None

    @property
    def latest(self) -> tuple[Entry, ...]:
        """What the last process has told."""
        entries = self.records.entries
        begins = [place for place, each in enumerate(entries) if isinstance(each.record, Run)]
        return entries[begins[-1] if begins else 0 :]

    @property
    def pace(self) -> Pace | None:
        """The stage that is at work, or at which the run was when it ended."""
        return pace_of(self.latest)


def look(folder: Path) -> Standing:
    """How the run in a folder stands now.

    Raises
    ------
    RecordError
        When there is no run, or a later version of this package wrote its journal.
    """
    head, place = head_of(folder), records_folder(folder)
    starting, journal = _records(place / STARTING), _records(place / JOURNAL)
    if starting is None and journal is None and head is None:
        raise _no_run(folder)
    records, earlier, file = journal or Records(()), "", place / JOURNAL
    if starting is not None:
        records, file = starting, place / STARTING
        if journal is not None and journal.status == "complete":
            earlier = journal.status
        elif journal is not None and journal.of(Run)[-1:] != starting.of(Run)[-1:]:
            records = Records((*journal.entries, *starting.entries))
    begun = [each.time for each in records.entries if isinstance(each.record, Run)][-1:]
    if head is not None and all(head.time > each.timestamp() for each in begun):
        state: State = "queued" if head.is_alive() is not False else "killed"
        return Standing(folder, Records(()), state, head=head)
    sign = _sign(file, records)
    runs = records.of(Run)
    if head is not None and not (runs and runs[-1].head == head.name):
        head = None  # of an earlier process
    state, is_here = _judge(records, sign, head)
    return Standing(folder, records, state, sign, is_here, earlier, head)


def is_at_work(run: Run) -> bool | None:
    """Whether the process of a run lives on this machine; None where that cannot be told."""
    if run.host != socket.gethostname():
        return None
    birth = birth_of(run.process)
    if not run.birth:  # an earlier version wrote it
        return bool(birth) or False
    if birth == run.birth:
        return True
    is_same_boot = birth_of(1).partition("/")[0] == run.birth.partition("/")[0]
    return False if is_same_boot else None  # the machine was started again, or has a namesake


def pace_of(entries: Iterable[Entry]) -> Pace | None:
    """How far the last stage is that has not ended; None between stages."""
    stage: tuple[Stage, datetime] | None = None
    progress: list[tuple[Progress, datetime]] = []
    for entry in entries:
        match entry.record:
            case Stage():
                stage, progress = (entry.record, entry.time), []
            case StageEnd() if entry.record.is_complete:
                stage = None
            case Progress():
                progress.append((entry.record, entry.time))
    if stage is None:
        return None
    began = stage[1]
    if not progress:
        return Pace(stage[0].stage, began, total=stage[0].events)
    last, time_of_last = progress[-1]
    before = [each for each, _ in progress if each.seconds <= (1.0 - RECENT) * last.seconds]
    events, seconds = (before[-1].events, before[-1].seconds) if before else (0, 0.0)
    if last.seconds <= seconds:
        return Pace(last.stage, began, last.events, last.total)
    rate = (last.events - events) / (last.seconds - seconds)
    end = None
    if rate > 0 and last.total:
        seconds_left = (last.total - last.events) / rate
        end = datetime.fromtimestamp(time_of_last.timestamp() + seconds_left, UTC)
    return Pace(last.stage, began, last.events, last.total, rate, end)


def _judge(records: Records, sign: datetime, head: Head | None) -> tuple[State, bool]:
    """The state, and whether the process is here."""
    for outcome in get_args(Outcome):
        if records.status == outcome:
            return outcome, False
    runs = records.of(Run)
    is_silent = time.time() - sign.timestamp() > SILENCE
    here = is_at_work(runs[-1]) if runs else None
    if here:
        return "running", True
    if here is False or (head is not None and head.is_alive() is False):
        return "killed", False
    if not is_silent:
        return "running", False
    is_same_host = bool(runs) and runs[-1].host == socket.gethostname()
    return "killed" if is_same_host else "silent", False


def _sign(file: Path, records: Records) -> datetime:
    """The last sign of life of whoever writes to a journal."""
    time_of_last = records.entries[-1].time.timestamp() if records.entries else 0.0
    with suppress(OSError):  # it was moved just now
        time_of_last = max(time_of_last, file.stat().st_mtime)
    return datetime.fromtimestamp(time_of_last, UTC)


def _records(file: Path) -> Records | None:
    if not file.exists():
        return None
    try:
        records = read(file)
    except RecordError:
        if file.exists():
            raise
        return None  # it was moved just now
    return records if records.entries else None


def _no_run(folder: Path) -> RecordError:
    near = ""
    if folder.parent.is_dir():
        others = [each.parent.name for each in folder.parent.glob(f"*/{JOURNAL}")]
        near = did_you_mean(folder.name, others)
    if folder.is_dir():
        why = f"holds no {JOURNAL}, expected the folder that a run writes, its output"
    else:
        why = "there is no such folder, expected the output of a run"
    return RecordError(f"{folder}: {why}{near}", file=str(folder))
