"""The queues of batch systems: jobs are submitted, seen, ended and explained there.

Every question is one command of the batch system, which is given up after a while; what cannot be
understood is no answer. Nothing is decided here.
"""

from __future__ import annotations

import re
import shutil
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from mlaas4hep_dask.cluster.batch.commands import Commands, words_of
from mlaas4hep_dask.cluster.batch.views import Seen
from mlaas4hep_dask.cluster.systems.script import Script
from mlaas4hep_dask.errors import ClusterError

LOG_LINES = 15
WORDS = 200  # characters of an answer that cannot be read


class RefusedError(ClusterError):
    """A batch system refused a job (facts: command)."""


class UnansweredError(RefusedError):
    """A batch system did not say whether it took a job: it may have (facts: command)."""


class Queue(ABC):
    """A user's jobs in one batch system, by its commands.

    Parameters
    ----------
    options : sequence of str
        More options of the commands that see and end jobs, as of `Site.queue_options`.

    Attributes
    ----------
    said : str
        Why there was no answer when there was none last, in the words of the batch system.
    """

    COMMANDS: ClassVar[Sequence[str]]

    def __init__(self, options: Sequence[str] = ()) -> None:
        self.options = tuple(options)
        self.said = ""
        self._commands = Commands()

    @abstractmethod
    def submit(self, script: Script, path: Path) -> str:
        """The id of a new job, whose script is written to a path.

        Raises
        ------
        RefusedError
            With the words of the batch system.
        UnansweredError
            When it gave none in time: the job may be in the queue, by its name.
        """

    @abstractmethod
    def seen(self) -> dict[str, Seen] | None:
        """The jobs that the batch system knows, by id; None when it does not answer."""

    @abstractmethod
    def cancel_command(self, ids: Sequence[str]) -> tuple[str, ...]:
        """The words of the command that ends jobs."""

    @abstractmethod
    def explain(self, job: str) -> str:
        """What the batch system itself says of a job that does not start; may be empty."""

    def end_of(self, job: str) -> str:
        """What the batch system still says of a job that has left the queue; may be empty."""
        del job
        return ""

    @staticmethod
    def own_job() -> str:
        """The job in which this process works; empty outside of one, or where nothing tells."""
        return ""

    @staticmethod
    def was_started_again() -> bool:
        """True in a job that the batch system has started again by itself."""
        return False

    def cancel(self, ids: Sequence[str]) -> str:
        """End jobs; empty, or what is said against it, as of some that have ended already."""
        if not ids:
            return ""
        command = self.cancel_command(ids)
        try:
            process = self._commands.run(*command)
        except TimeoutError as error:
            return str(error)
        except OSError as error:
            return f"{command[0]} cannot be run ({error.strerror or error})"
        return f"{command[0]}: {words_of(process)}" if process.returncode else ""

    def hurry(self, seconds: float) -> None:
        """Give each command, also one that runs, no more than so many seconds from now on."""
        self._commands.hurry(seconds)

    def submit_by_command(self, script: Script, path: Path, number: re.Pattern[str]) -> str:
        """Submit, and find the job's number in what the command prints; raises as `submit`."""
        command = script.submit[0]
        try:
            path.write_text(script.text)
        except OSError as error:
            text = f"{path} cannot be written ({error.strerror or error})"
            raise RefusedError(text, command=command) from error
        try:
            process = self._commands.run(*script.submit, str(path), environment=script.environment)
        except TimeoutError as error:
            raise UnansweredError(str(error), command=command) from error
        except OSError as error:
            text = f"{command} cannot be run ({error.strerror or error})"
            raise RefusedError(text, command=command) from error
        match = number.search(process.stdout)
        if match and not process.returncode:
            return match[1]
        words = f"{command}: {words_of(process)}"
        # A controller that is busy may take a job, and its answer comes too late for the command.
        is_refused = process.returncode and "timed out" not in words.lower()
        raise (RefusedError if is_refused else UnansweredError)(words, command=command)

    def output_of(self, *command: str) -> str | None:
        """What a command printed; None, and why in ``said``, when it failed or took too long."""
        try:
            process = self._commands.run(*command)
        except TimeoutError as error:
            self.said = str(error)
        except OSError as error:
            self.said = f"{command[0]} cannot be run ({error.strerror or error})"
        else:
            if not process.returncode:
                return process.stdout
            self.said = f"{command[0]}: {words_of(process)}"
        return None

    def unreadable(self, command: str, text: str) -> None:
        """Keep in mind that an answer cannot be read, and how it begins."""
        beginning = " ".join(text.split())[:WORDS]
        self.said = f"{command}: the answer cannot be read: {beginning}"


def require_commands(queue: Queue) -> None:
    """Raise a ClusterError when a command of the batch system is missing here."""
    missing = [command for command in queue.COMMANDS if shutil.which(command) is None]
    if missing:
        raise ClusterError(
            f"there is no {missing[0]} here: run this where jobs can be submitted",
            command=missing[0],
        )


def log_end(script: Script, job: str) -> str:
    """The last lines of what a job printed that tell more than that all goes well; may be empty."""
    path = script.log_of(job)
    try:
        lines = path.read_text(errors="replace").splitlines() if path else []
    except OSError:  # it has not begun, or its node took the file along
        return ""
    telling = [line for line in lines if " - INFO - " not in line]
    return "\n".join(telling[-LOG_LINES:] or lines[-1:])
