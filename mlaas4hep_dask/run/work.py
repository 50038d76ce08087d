"""The work of a process on a run, from its first moment: nobody else writes there, all is told."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlaas4hep_dask import __version__
from mlaas4hep_dask.command import SUCCESS, exit_status
from mlaas4hep_dask.config import Config
from mlaas4hep_dask.console import Reporter
from mlaas4hep_dask.errors import WriteError
from mlaas4hep_dask.journal import Caution, End, Journal, Message, Run, birth_of
from mlaas4hep_dask.journal.read import JOURNAL, STARTING
from mlaas4hep_dask.run.directory import RunDirectory
from mlaas4hep_dask.run.head import VARIABLE


@dataclass(frozen=True)
class Work:
    """The folder of a run, the journal of the process that works on it, and its command line."""

    folder: RunDirectory
    journal: Journal
    command: str | None = None

    def begin(self, facts: Mapping[str, Any]) -> None:
        """Take up the run in the folder, or begin a new one; the facts decide."""
        self.folder.begin(facts)
        self._go_on()

    def settle(self, facts: Mapping[str, Any]) -> bool:
        """As `RunDirectory.settle`."""
        if self.folder.settle(facts):
            return True
        self._go_on(self.folder.changed)
        return False

    def complete(self) -> None:
        """Write down that the run is complete."""
        self.journal.end(End("complete", exit_status=SUCCESS))
        self.folder.complete()

    def _go_on(self, why: str = "") -> None:
        folder = self.folder
        self.journal.move(folder.path / JOURNAL, why)
        for path in (folder.path, folder.moved_to or folder.path):
            (path / STARTING).unlink(missing_ok=True)
        if folder.moved_to is None:
            return
        if folder.changed:
            text = f"the interrupted run in {folder.path} is not taken up: {folder.changed}"
            self.journal.add(Message(text))
        text = f"an earlier run in {folder.path} was moved to {folder.moved_to}"
        self.journal.add(Message(text))


@contextmanager
def work_on(
    config: Config,
    *,
    output: str | Path | None = None,
    reporter: Reporter | None = None,
    command: str | None = None,
) -> Iterator[Work]:
    """Begin to work on a run: its folder is locked and the journal begins.

    Parameters
    ----------
    config : Config
        Of the run.
    output : str or Path, optional
        The run directory; by default the configuration's.
    reporter : Reporter, optional
        Told of all records; by default they are logged.
    command : str, optional
        The command line, for the report.

    Raises
    ------
    ConfigError
        When another run writes to the folder, or it holds anything else.
    """
    path = Path(output if output is not None else config.output).absolute()
    journal = Journal((reporter or Reporter()).hear)
    host, process = socket.gethostname(), os.getpid()
    birth, head = birth_of(process), os.environ.get(VARIABLE, "")
    journal.add(Run(config.name, __version__, process, host, command, birth, head))
    with RunDirectory(path) as folder, journal.kept(path / STARTING, exit_status):
        cautions = _Cautions(journal)
        _logger().addHandler(cautions)
        try:
            yield Work(folder, journal, command)
        finally:
            _logger().removeHandler(cautions)


def _logger() -> logging.Logger:
    return logging.getLogger("mlaas4hep_dask")


class _Cautions(logging.Handler):
    """Warnings of this package's loggers as records."""

    def __init__(self, journal: Journal) -> None:
        super().__init__(logging.WARNING)
        self._journal = journal

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(WriteError):
            self._journal.add(Caution(record.getMessage(), record.name))
