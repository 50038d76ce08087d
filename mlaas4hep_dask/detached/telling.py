"""What a process tells of its work: who it is, its records and its warnings, kept in a file."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mlaas4hep_dask import __version__
from mlaas4hep_dask.command import exit_status
from mlaas4hep_dask.errors import WriteError
from mlaas4hep_dask.journal import Caution, Journal, Run, birth_of
from mlaas4hep_dask.places import VARIABLE


def run_of(name: str, command: str | None, *, verb: str = "run") -> Run:
    """The record with which this process begins.

    Parameters
    ----------
    name : str
        Of what it works on.
    command : str or None
        The command line.
    verb : str
        Of ``mlaas4hep``.
    """
    host, process = socket.gethostname(), os.getpid()
    head = os.environ.get(VARIABLE, "")
    return Run(name, __version__, process, host, command, birth_of(process), head, verb)


@contextmanager
def telling(journal: Journal, file: Path) -> Iterator[None]:
    """Keep the records of a journal in a file, how this process ends and its warnings too."""
    with journal.kept(file, exit_status):
        cautions = _Cautions(journal)
        logger = logging.getLogger("mlaas4hep_dask")
        logger.addHandler(cautions)
        try:
            yield
        finally:
            logger.removeHandler(cautions)


class _Cautions(logging.Handler):
    """Warnings of this package's loggers as records."""

    def __init__(self, journal: Journal) -> None:
        super().__init__(logging.WARNING)
        self._journal = journal

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(WriteError):
            self._journal.add(Caution(record.getMessage(), record.name))
