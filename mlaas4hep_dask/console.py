"""What commands print of the records of their work: bars with rates on a terminal, plain lines."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console as RichConsole
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from mlaas4hep_dask import journal
from mlaas4hep_dask.journal import Record

logger = logging.getLogger(__name__)

MAX_SHOWN = 10  # skipped files and entry ranges


class Reporter:
    """Hears the records of a command and logs what it says; `Console` prints it too."""

    def hear(self, record: Record) -> None:
        """Say a record, if it is one that is said."""
        if is_said(record):
            self.say(journal.text(record))

    def say(self, text: str) -> None:
        """Tell one fact."""
        logger.info(text)


def is_said(record: Record) -> bool:
    """True for what a console says; warnings of loggers are printed by logging itself."""
    match record:
        case journal.StageEnd():
            return record.is_complete
        case journal.Caution():
            return not record.logger
    return isinstance(record, journal.Epoch | journal.Message | journal.Scores)


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f} events/s")


class Console(Reporter):
    """Prints to a stream.

    Parameters
    ----------
    stream : file object, optional
        Standard output by default.
    clock : callable, optional
        Seconds, by which bars tell rates; of records that were written before, their times.
    """

    def __init__(
        self, stream: TextIO | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__()
        self._clock = clock
        self._rich = RichConsole(file=stream, highlight=False, soft_wrap=True)
        self._bar: Progress | None = None

    def hear(self, record: Record) -> None:
        """Print a record, if it is one that is said, and move the bar of the stage."""
        match record:
            case journal.Stage():
                self._begin_bar(record)
            case journal.Progress() if self._bar is not None:
                self._bar.update(self._bar.task_ids[0], completed=record.events)
            case journal.StageEnd():
                self._end_bar()
            case journal.Scores():
                self._say_scores(record)
        super().hear(record)

    def say(self, text: str) -> None:
        """Print one line."""
        super().say(text)
        self._rich.print(text, markup=False)

    def say_skipped(self, skipped: Sequence[Mapping[str, Any]]) -> None:
        """Print files and entry ranges that were left out, and why; the first of them only."""
        for entry in skipped[:MAX_SHOWN]:
            entries = ""
            if entry["entry_stop"] is not None:
                entries = f", entries {entry['entry_start']}-{entry['entry_stop']}"
            place = f"{entry['file']}:{entry['tree']}" if entry.get("tree") else entry["file"]
            self.say(f"skipped: {place}{entries} ({entry['reason']})")
        if len(skipped) > MAX_SHOWN:
            self.say(f"skipped: {len(skipped) - MAX_SHOWN} more")

    def _say_scores(self, scores: journal.Scores) -> None:
        """Print what was scored and left out."""
        table = Table(title=f"scores in {Path(scores.path).name}", show_header=False)
        for title, number in scores.counts.items():
            table.add_row(title, f"{number:,}")
        self.print(table)
        self.say_skipped(scores.skipped)
        self.say(f"branches: {', '.join(scores.branches)}")

    def print(self, table: Table) -> None:
        """Print a table."""
        self._rich.print(table)

    def close(self) -> None:
        """Take away the bar of a stage that will not end."""
        self._end_bar()

    def _begin_bar(self, stage: journal.Stage) -> None:
        if not self._rich.is_terminal or not stage.events:
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:,.0f}/{task.total:,.0f}"),
            _Rate(),
            TimeRemainingColumn(),
        )
        self._bar = Progress(*columns, console=self._rich, transient=True, get_time=self._clock)
        self._bar.add_task(stage.stage, total=stage.events)
        self._bar.start()

    def _end_bar(self) -> None:
        bar, self._bar = self._bar, None
        if bar is not None:
            bar.stop()
