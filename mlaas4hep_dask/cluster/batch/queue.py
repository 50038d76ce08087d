"""The queues of batch systems: jobs are submitted, seen, ended and explained there.

Every question is one command of the batch system, which is given up after a while. Nothing is
decided here.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

from mlaas4hep_dask.cluster.batch.states import Seen
from mlaas4hep_dask.cluster.sites import Script
from mlaas4hep_dask.errors import ClusterError

COMMAND_TIMEOUT = 60.0  # seconds; a busy controller takes some of them
LOG_LINES = 15
ANALYSIS_LINES = 25


class RefusedError(ClusterError):
    """A batch system refused a job (facts: command)."""


class Queue(Protocol):
    """A user's jobs in one batch system, by its commands."""

    COMMANDS: ClassVar[Sequence[str]]

    def submit(self, script: Script, path: Path) -> str:
        """The id of a new job, whose script is written to a path.

        Raises
        ------
        RefusedError
            With the words of the batch system.
        """
        ...

    def seen(self) -> dict[str, Seen] | None:
        """The jobs that the batch system knows, by id; None when it does not answer."""
        ...

    def cancel(self, ids: Sequence[str]) -> None:
        """End jobs; those that have ended are left alone."""
        ...

    def cancel_command(self, ids: Sequence[str]) -> tuple[str, ...]:
        """The words of the command that ends jobs."""
        ...

    def explain(self, job: str) -> str:
        """What the batch system itself says of a job that does not start; may be empty."""
        ...


@dataclass(frozen=True)
class Slurm:
    """Jobs of SLURM.

    Attributes
    ----------
    options : tuple of str
        More options of the commands that see and end jobs, as of `Site.queue_options`.
    """

    options: tuple[str, ...] = ()

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
        return _submit(script, path, re.compile(r"batch job (\d+)"))

    def seen(self) -> dict[str, Seen] | None:  # noqa: D102  # of Queue
        form = ("--me", "--noheader", "--states=all", "--format=%i|%T|%r")
        text = _output_of("squeue", *self.options, *form)
        if text is None:
            return None
        rows = (line.split("|", 2) for line in text.splitlines() if line.count("|") >= 2)
        return {job: self._seen(state, reason) for job, state, reason in rows}

    def _seen(self, state: str, reason: str) -> Seen:
        why = "" if reason in ("None", "") else reason
        if state in self._ENDED:
            words = self._ENDED[state]
            return Seen("gone", f"{words}, {why}" if why else words, state == "TIMEOUT")
        if "held" in why.lower():
            return Seen("held", why)
        return Seen("pending" if state in self._WAITING else "running", why)

    def cancel(self, ids: Sequence[str]) -> None:  # noqa: D102  # of Queue
        if ids:
            _output_of(*self.cancel_command(ids))

    def cancel_command(self, ids: Sequence[str]) -> tuple[str, ...]:  # noqa: D102  # of Queue
        return ("scancel", *self.options, *ids)

    def explain(self, job: str) -> str:  # noqa: D102  # of Queue
        text = _output_of("scontrol", *self.options, "show", "job", job) or ""
        beginnings = ("JobState=", "Reason=", "Partition=", "ReqTRES=", "TRES=", "NumNodes=")
        return " ".join(word for word in text.split() if word.startswith(beginnings))


@dataclass(frozen=True)
class HTCondor:
    """Jobs of HTCondor; their ids are as ``7.0``.

    Attributes
    ----------
    options : tuple of str
        More options of the commands that see and end jobs: ``-name`` and the queue's machine.
    """

    options: tuple[str, ...] = ()

    COMMANDS: ClassVar[Sequence[str]] = ("condor_submit", "condor_q", "condor_rm")

    _ATTRIBUTES: ClassVar[str] = (
        "ClusterId,ProcId,JobStatus,HoldReason,HoldReasonCode,LastRejMatchReason"
    )
    _IDLE: ClassVar[int] = 1
    _REMOVED: ClassVar[int] = 3
    _COMPLETED: ClassVar[int] = 4
    _HELD: ClassVar[int] = 5
    _SPOOLING: ClassVar[int] = 16  # the hold of a job whose files are on their way

    def submit(self, script: Script, path: Path) -> str:  # noqa: D102  # of Queue
        return _submit(script, path, re.compile(r"cluster (\d+)")) + ".0"

    def seen(self) -> dict[str, Seen] | None:  # noqa: D102  # of Queue
        text = _output_of("condor_q", *self.options, "-json", "-attributes", self._ATTRIBUTES)
        if text is None:
            return None
        jobs = json.loads(text) if text.strip() else []
        return {f"{job['ClusterId']}.{job['ProcId']}": self._seen(job) for job in jobs}

    def _seen(self, job: Mapping[str, str | int]) -> Seen:
        status = job["JobStatus"]
        if status == self._HELD and job.get("HoldReasonCode") != self._SPOOLING:
            return Seen("held", str(job.get("HoldReason", "")))
        if status in (self._REMOVED, self._COMPLETED):
            return Seen("gone", "removed" if status == self._REMOVED else "ended by itself")
        if status in (self._IDLE, self._HELD):
            return Seen("pending", str(job.get("LastRejMatchReason", "")).strip())
        return Seen("running")

    def cancel(self, ids: Sequence[str]) -> None:  # noqa: D102  # of Queue
        if ids:
            _output_of(*self.cancel_command(ids))

    def cancel_command(self, ids: Sequence[str]) -> tuple[str, ...]:  # noqa: D102  # of Queue
        return ("condor_rm", *self.options, *ids)

    def explain(self, job: str) -> str:  # noqa: D102  # of Queue
        text = _output_of("condor_q", *self.options, "-better-analyze", job) or ""
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


def _submit(script: Script, path: Path, number: re.Pattern[str]) -> str:
    path.write_text(script.text)
    command = script.submit[0]
    try:
        process = subprocess.run(  # noqa: S603  # commands of the batch system
            [*script.submit, str(path)],
            env=script.environment,
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise RefusedError(
            f"{command} did not answer within {COMMAND_TIMEOUT:g} s", command=command
        ) from error
    match = number.search(process.stdout)
    if process.returncode or not match:
        words = " ".join((process.stderr or process.stdout).split())
        words = words or f"exit status {process.returncode}"
        raise RefusedError(f"{command}: {words}", command=command)
    return match[1]


def _output_of(*command: str) -> str | None:
    """What a command printed; None when it failed, is missing or took too long."""
    try:
        process = subprocess.run(  # noqa: S603  # commands of the batch system
            command,
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return None if process.returncode else process.stdout
