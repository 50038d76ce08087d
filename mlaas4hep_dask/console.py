"""What the command line prints: bars with rates on a terminal, plain lines in a log."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TextIO

from rich.console import Console as RichConsole
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

logger = logging.getLogger(__name__)

MAX_SHOWN = 10  # skipped files and entry ranges


@dataclass(frozen=True)
class Stage:
    """One finished stage: its name, the events it went through and its seconds."""

    stage: str
    events: int
    seconds: float

    @property
    def events_per_second(self) -> float:
        """The rate."""
        return self.events / self.seconds if self.seconds > 0 else 0.0

    def as_json(self) -> dict[str, Any]:
        """The stage as a JSON value."""
        return {
            "stage": self.stage,
            "events": self.events,
            "seconds": round(self.seconds, 4),
            "events_per_second": round(self.events_per_second, 1),
        }


class Reporter:
    """Keeps the stages of a command and logs them; `Console` prints them too."""

    def __init__(self) -> None:
        self.stages: list[Stage] = []

    def say(self, text: str) -> None:
        """Tell one fact."""
        logger.info(text)

    def record(self, stage: Stage) -> None:
        """Keep a finished stage and tell its time and rate."""
        self.stages.append(stage)
        rate = f" ({stage.events_per_second:,.0f} events/s)" if stage.events else ""
        what = f"{stage.events:,} events in " if stage.events else ""
        self.say(f"{stage.stage}: {what}{stage.seconds:.2f} s{rate}")

    @contextmanager
    def stage(self, name: str, total: int) -> Iterator[Callable[[int], None]]:
        """Time a stage of ``total`` events; gives a function to be told of events done."""
        began = time.perf_counter()
        with self._bar(name, total) as advance:
            yield advance
        self.record(Stage(name, total, time.perf_counter() - began))

    @contextmanager
    def _bar(self, name: str, total: int) -> Iterator[Callable[[int], None]]:
        del name, total
        yield _ignore


def _ignore(events: int) -> None:
    """Show no bar."""


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
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        super().__init__()
        self._rich = RichConsole(file=stream, highlight=False, soft_wrap=True)

    def say(self, text: str) -> None:
        """Print one line."""
        super().say(text)
        self._rich.print(text, markup=False)

    def say_skipped(self, skipped: Sequence[Mapping[str, Any]]) -> None:
        """Print files and entry ranges that were left out, and why; the first of them only."""
        for lost in skipped[:MAX_SHOWN]:
            entries = ""
            if lost["entry_stop"] is not None:
                entries = f", entries {lost['entry_start']}-{lost['entry_stop']}"
            self.say(f"skipped: {lost['file']}{entries} ({lost['reason']})")
        if len(skipped) > MAX_SHOWN:
            self.say(f"skipped: {len(skipped) - MAX_SHOWN} more")

    @contextmanager
    def _bar(self, name: str, total: int) -> Iterator[Callable[[int], None]]:
        if not self._rich.is_terminal:
            yield _ignore
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:,.0f}/{task.total:,.0f}"),
            _Rate(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self._rich, transient=True) as bar:
            task = bar.add_task(name, total=total)
            yield lambda events: bar.advance(task, events)

    def print(self, table: Table) -> None:
        """Print a table."""
        self._rich.print(table)
