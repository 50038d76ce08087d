"""The journal of a run: records go to listeners at once, and to a file, line by line."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from mlaas4hep_dask.errors import WriteError, writing
from mlaas4hep_dask.journal.records import (
    VERSION,
    End,
    Progress,
    Record,
    Stage,
    StageEnd,
    from_json,
    to_json,
)

BEAT = 60.0  # seconds between two signs of life
FIRST_PAUSE = 1.0  # seconds between lines of progress while a stage is young
PAUSE_SHARE = 0.01  # of the time of a stage: later pauses, so that a long one has some 700 lines


class Journal:
    """Takes records, tells them to listeners, and appends them to a file once there is one.

    Every line is one write to the end of the file: what was added before a process is killed is
    there, and at most the last line is cut. While there is nothing to tell, the time of the file is
    set every minute.

    Parameters
    ----------
    *listeners : callable
        Each is told every record, in the order in which they are added.
    """

    def __init__(self, *listeners: Callable[[Record], None]) -> None:
        self._listeners = list(listeners)
        self._lines: list[bytes] = []  # of this process, but for progress
        self._stages: list[StageEnd] = []
        self._file: int | None = None
        self._path = Path()
        self._is_over = False
        self._lock = threading.RLock()  # records come from the thread of a cluster's client too

    @property
    def stages(self) -> list[StageEnd]:
        """The stages that are complete, in their order."""
        return list(self._stages)

    def add(self, record: Record) -> None:
        """Append a record and tell it.

        Raises
        ------
        WriteError
            When the file cannot be written, as on a full disk.
        """
        with self._lock:
            if isinstance(record, StageEnd) and record.is_complete:
                self._stages.append(record)
            line = _line(record)
            self._lines.append(line)
            self._write(line)
        self._tell(record)

    @contextmanager
    def heard_by(self, listener: Callable[[Record], None]) -> Iterator[None]:
        """Have another listener told all records of this process, those from before too."""
        with self._lock:
            lines = list(self._lines)
            self._listeners.append(listener)
        for line in lines:
            listener(from_json(json.loads(line)))
        try:
            yield
        finally:
            self._listeners.remove(listener)

    @contextmanager
    def stage(self, name: str, events: int = 0) -> Iterator[Advance]:
        """Time a stage; gives a function to be told of events that are done.

        Parameters
        ----------
        name : str
            Of the stage.
        events : int
            What it will go through. If that is known later only, set ``events`` of what is given.
        """
        self.add(Stage(name, events))
        advance = Advance(self, name, events)
        try:
            yield advance
        except BaseException:
            with suppress(WriteError):  # the reason for the end is another
                self.add(StageEnd(name, advance.done, advance.seconds, is_complete=False))
            raise
        self.add(StageEnd(name, advance.events, advance.seconds))

    @contextmanager
    def kept(
        self,
        path: Path,
        exit_status: Callable[[BaseException], int] | None = None,
        *,
        beat: float = BEAT,
    ) -> Iterator[None]:
        """Keep the records in a file, those from before too, and tell there how it ends.

        Parameters
        ----------
        path : Path
            The file.
        exit_status : callable, optional
            What a command ends with that an error breaks off.
        beat : float
            Seconds between two signs of life.
        """
        self._open(path)
        over = threading.Event()
        beating = threading.Thread(
            target=self._beat, args=(over, beat), name="journal", daemon=True
        )
        beating.start()
        try:
            yield
        except BaseException as error:
            interrupt = isinstance(error, KeyboardInterrupt)
            status = None if exit_status is None else exit_status(error)
            with suppress(WriteError):
                self.end(End("interrupted" if interrupt else "failed", _first_line(error), status))
            raise
        else:
            self.end(End("complete", exit_status=None if exit_status is None else 0))
        finally:
            over.set()
            beating.join()
            self._close()

    def end(self, record: End) -> None:
        """Tell how this process ends its work, unless it is told already."""
        if not self._is_over:
            self._is_over = True
            self.add(record)

    def move(self, path: Path, why: str = "") -> None:
        """Go on in another file, with all records of this process; the first one tells why."""
        with self._lock:
            if why:
                self._write(_line(End("moved", why)))
            self._close()
            self._open(path)

    def tell_progress(self, record: Progress, *, is_due: bool) -> None:
        """Tell a listener of progress, and if it ``is_due`` the file too."""
        if is_due:
            with self._lock, suppress(WriteError):  # the next record tells it
                self._write(_line(record))
        self._tell(record)

    def _beat(self, over: threading.Event, beat: float) -> None:
        """Set the time of the file, by which those on other machines see that somebody lives."""
        while not over.wait(beat):
            with self._lock, suppress(OSError):  # of a server that is away: what is written tells
                if self._file is not None:
                    os.utime(self._file)

    def _tell(self, record: Record) -> None:
        for listener in tuple(self._listeners):
            listener(record)

    def _open(self, path: Path) -> None:
        with self._lock, writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._path = path
            self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
            size = os.fstat(self._file).st_size
            if size and os.pread(self._file, 1, size - 1) != b"\n":
                self._write(b"\n")  # ends a line that was cut
            for line in self._lines:
                self._write(line)

    def _close(self) -> None:
        with self._lock:
            if self._file is not None:
                os.close(self._file)
                self._file = None

    def _write(self, line: bytes) -> None:
        if self._file is None:
            return
        with writing(self._path):
            while line:
                line = line[os.write(self._file, line) :]


class Advance:
    """Told how many events of a stage are done.

    Parameters
    ----------
    journal : Journal
        Where progress goes.
    stage : str
        Its name.
    events : int
        What it will go through; 0 where that is not known yet.
    """

    def __init__(self, journal: Journal, stage: str, events: int) -> None:
        self.events = events
        self.done = 0
        self._journal = journal
        self._stage = stage
        self._began = time.perf_counter()
        self._due = FIRST_PAUSE

    @property
    def seconds(self) -> float:
        """Since the stage began."""
        return time.perf_counter() - self._began

    def __call__(self, events: int) -> None:
        """Add events that are done; what is done again, after deaths of workers, counts once."""
        done = self.done + events
        self.done = min(done, self.events) if self.events else done
        seconds = self.seconds
        is_due = seconds >= self._due
        if is_due:
            self._due = seconds + max(FIRST_PAUSE, PAUSE_SHARE * seconds)
        record = Progress(self._stage, self.done, self.events, round(seconds, 3))
        self._journal.tell_progress(record, is_due=is_due)


def _line(record: Record) -> bytes:
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    value = {"version": VERSION, "time": now, **to_json(record)}
    return json.dumps(value, allow_nan=False).encode() + b"\n"


def _first_line(error: BaseException) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
