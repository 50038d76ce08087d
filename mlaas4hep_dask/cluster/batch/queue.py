"""The queues of batch systems: jobs are submitted, seen, ended and explained there.

Every question is one command of the batch system, which is given up after a while; what cannot be
understood is no answer. Nothing is decided here.
"""

from __future__ import annotations

import json
import re
import shutil
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Protocol

from mlaas4hep_dask.cluster.batch.commands import Commands, words_of
from mlaas4hep_dask.cluster.batch.views import Seen
from mlaas4hep_dask.cluster.sites import Script
from mlaas4hep_dask.errors import ClusterError

LOG_LINES = 15
ANALYSIS_LINES = 25


class RefusedError(ClusterError):
    """A batch system refused a job (facts: command)."""


class UnansweredError(RefusedError):
    """A batch system did not say whether it took a job: it may have (facts: command)."""


class Queue(Protocol):
    """A user's jobs in one batch system, by its commands."""

    COMMANDS: ClassVar[Sequence[str]]

    def submit(self, script: Script, path: Path) -> str:
        """The id of a new job, whose script is written to a path.

        Raises
        ------
        RefusedError
            With the words of the batch system.
        UnansweredError
            When it gave none in time: the job may be in the queue, by its name.
        """
        ...

    def seen(self) -> dict[str, Seen] | None:
        """The jobs that the batch system knows, by id; None when it does not answer."""
        ...

    def cancel(self, ids: Sequence[str]) -> str:
        """End jobs; empty, or what is said against it, as of some that have ended already."""
        ...

    def cancel_command(self, ids: Sequence[str]) -> tuple[str, ...]:
        """The words of the command that ends jobs."""
        ...

    def explain(self, job: str) -> str:
        """What the batch system itself says of a job that does not start; may be empty."""
        ...

    def hurry(self, seconds: float) -> None:
        """Give each command, also one that runs, no more than so many seconds from now on."""
        ...


class _ByCommands(ABC):
    """What the queues have in common.

    Parameters
    ----------
    options : sequence of str
        More options of the commands that see and end jobs, as of `Site.queue_options`.
    """

    def __init__(self, options: Sequence[str] = ()) -> None:
        self.options = tuple(options)
        self._commands = Commands()

    def cancel(self, ids: Sequence[str]) -> str:
        """As of `Queue`."""
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

    @abstractmethod
    def cancel_command(self, ids: Sequence[str]) -> tuple[str, ...]:
        """As of `Queue`."""

    def hurry(self, seconds: float) -> None:
        """As of `Queue`."""
        self._commands.hurry(seconds)

    def _submit(self, script: Script, path: Path, number: re.Pattern[str]) -> str:
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

    def _output_of(self, *command: str) -> str | None:
        """What a command printed; None when it failed, is missing or took too long."""
        try:
            process = self._commands.run(*command)
        except OSError:
            return None
        return None if process.returncode else process.stdout


class Slurm(_ByCommands):
    """Jobs of SLURM."""

    COMMANDS: ClassVar[Sequence[str]] = ("sbatch", "squeue", "scancel")

    # A job that has ended is known for some minutes (MinJobAge), so that its end has a reason.
    _ENDED: ClassVar[Mapping[str, str]] = {
        "BOOT_FAIL": "its node did not start",
        "CANCELLED": "cancelled",
        "COMPLETED": "ended by itself",
        "DEADLINE": "reached its deadline",
        "FAILED": "failed",
        "NODE_FAIL": "its node failed",
        "OUT_OF_MEMORY": "killed for memory",
        "PREEMPTED": "preempted",
        "REVOKED": "revoked",
        "TIMEOUT": "reached its walltime",
    }
    _WAITING: ClassVar[Sequence[str]] = ("PENDING", "CONFIGURING", "REQUEUED", "SPECIAL_EXIT")

    def submit(self, script: Script, path: Path) -> str:  # noqa: D102  # of Queue
        return self._submit(script, path, re.compile(r"batch job (\d+)"))

    def seen(self) -> dict[str, Seen] | None:  # noqa: D102  # of Queue
        # %A is the number that a job has in its own environment; %i is as 12_3 in an array.
        form = ("--me", "--noheader", "--states=all", "--format=%A|%T|%r|%j")
        text = self._output_of("squeue", *self.options, *form)
        rows = [line.split("|", 2) for line in (text or "").splitlines() if line.strip()]
        if text is None or any(len(row) < 3 for row in rows):
            return None
        jobs = {}
        for job, state, words in rows:
            reason, _, name = words.rpartition("|")
            is_ending = state == "COMPLETING"
            jobs[job] = replace(self._seen(state, reason), name=name, is_ending=is_ending)
        return jobs

    def _seen(self, state: str, reason: str) -> Seen:
        why = "" if reason in ("None", "") else reason
        if state in self._ENDED:
            words = self._ENDED[state]
            return Seen("gone", f"{words}, {why}" if why else words, state == "TIMEOUT")
        if "held" in why.lower():
            return Seen("held", why)
        return Seen("pending" if state in self._WAITING else "running", why)

    def cancel_command(self, ids: Sequence[str]) -> tuple[str, ...]:  # noqa: D102  # of Queue
        return ("scancel", *self.options, *ids)

    def explain(self, job: str) -> str:  # noqa: D102  # of Queue
        text = self._output_of("scontrol", *self.options, "show", "job", job) or ""
        beginnings = ("JobState=", "Reason=", "Partition=", "ReqTRES=", "TRES=", "NumNodes=")
        return " ".join(word for word in text.split() if word.startswith(beginnings))


class HTCondor(_ByCommands):
    """Jobs of HTCondor; their ids are as ``7.0``."""

    COMMANDS: ClassVar[Sequence[str]] = ("condor_submit", "condor_q", "condor_rm")

    _ATTRIBUTES: ClassVar[str] = (
        "ClusterId,ProcId,JobStatus,HoldReason,HoldReasonCode,LastRejMatchReason,JobBatchName"
    )
    _IDLE: ClassVar[int] = 1
    _REMOVED: ClassVar[int] = 3
    _COMPLETED: ClassVar[int] = 4
    _HELD: ClassVar[int] = 5
    _SPOOLING: ClassVar[int] = 16  # the hold of a job whose files are on their way

    def submit(self, script: Script, path: Path) -> str:  # noqa: D102  # of Queue
        return self._submit(script, path, re.compile(r"cluster (\d+)")) + ".0"

    def seen(self) -> dict[str, Seen] | None:  # noqa: D102  # of Queue
        text = self._output_of("condor_q", *self.options, "-json", "-attributes", self._ATTRIBUTES)
        if text is None:
            return None
        try:
            jobs = json.loads(text) if text.strip() else []
            return {f"{job['ClusterId']}.{job['ProcId']}": self._seen(job) for job in jobs}
        except (ValueError, TypeError, KeyError):  # a warning in between, or half of it
            return None

    def _seen(self, job: Mapping[str, str | int]) -> Seen:
        return replace(self._state_of(job), name=str(job.get("JobBatchName", "")))

    def _state_of(self, job: Mapping[str, str | int]) -> Seen:
        status = job["JobStatus"]
        if status == self._HELD and job.get("HoldReasonCode") != self._SPOOLING:
            return Seen("held", str(job.get("HoldReason", "")))
        if status in (self._REMOVED, self._COMPLETED):
            return Seen("gone", "removed" if status == self._REMOVED else "ended by itself")
        if status in (self._IDLE, self._HELD):
            return Seen("pending", str(job.get("LastRejMatchReason", "")).strip())
        return Seen("running")

    def cancel_command(self, ids: Sequence[str]) -> tuple[str, ...]:  # noqa: D102  # of Queue
        return ("condor_rm", *self.options, *ids)

    def explain(self, job: str) -> str:  # noqa: D102  # of Queue
        text = self._output_of("condor_q", *self.options, "-better-analyze", job) or ""
        lines = text.splitlines()
        return "\n".join([line for line in lines if line.strip()][-ANALYSIS_LINES:])


QUEUES: Mapping[str, type[Slurm | HTCondor]] = {"slurm": Slurm, "htcondor": HTCondor}


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
