"""The work of a process on a run, from its first moment: nobody else writes there, all is told."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlaas4hep_dask.command import SUCCESS
from mlaas4hep_dask.config import Config
from mlaas4hep_dask.console import Reporter
from mlaas4hep_dask.detached.telling import run_of, telling
from mlaas4hep_dask.errors import ConfigError
from mlaas4hep_dask.journal import End, Journal, Message
from mlaas4hep_dask.journal.read import JOURNAL, STARTING
from mlaas4hep_dask.run.directory import RunDirectory


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
        When another run writes to the folder, it holds anything else, or the configuration begins
        with something in it.
    """
    path = Path(output if output is not None else config.output).absolute()
    require_start_elsewhere(config, path)
    journal = Journal((reporter or Reporter()).hear)
    journal.add(run_of(config.name, command))
    with RunDirectory(path) as folder, telling(journal, path / STARTING):
        yield Work(folder, journal, command)


def require_start_elsewhere(config: Config, output: Path) -> None:
    """Raise for a configuration that begins with what lies in the folder of its own run.

    An earlier run there is moved aside: the same command would find nothing after an interrupt, or
    what this run has made so far.

    Raises
    ------
    ConfigError
        With the place of the key.
    """
    begin = config.training.warm_start
    starts = {
        "training.warm_start": None if begin is None else begin.path,
        "specs.path": config.specs.path,
    }
    for key, path in starts.items():
        if path is not None and config.resolve(path).resolve().is_relative_to(output.resolve()):
            raise ConfigError(
                f"{config.where(key)}: {key} is in the output of this run, {output}, which is "
                "moved aside; name another output",
                key=key,
            )
