"""The records of what works apart from its command: a batch job, or a process of a machine."""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from mlaas4hep_dask.journal import birth_of
from mlaas4hep_dask.journal.lines import lines_of
from mlaas4hep_dask.places import LOCAL, SYSTEMS

if TYPE_CHECKING:
    from mlaas4hep_dask.cluster.batch.views import Seen

HEAD = "head.json"


@dataclass(frozen=True)
class Head:
    """What ``--detach`` has started.

    Attributes
    ----------
    name : str
        The folder of its records.
    system : str
        ``slurm``, ``htcondor`` or ``local``.
    job : str
        Its id, or the number of the process. Empty until the batch system has told it.
    host : str
        Where it was submitted or started.
    log : str
        The file of what it prints, where ``{job}`` stands for an id that is not known; empty if
        that is not kept.
    time : float
        Seconds since 1970, when it was started.
    birth : str
        Of a process, as `birth_of` has it.
    options : tuple of str
        More options of the batch system's commands that see and end the job.
    """

    name: str
    system: str
    job: str
    host: str
    log: str
    time: float = 0.0
    birth: str = ""
    options: tuple[str, ...] = ()

    @classmethod
    def read(cls, file: Path) -> Self | None:
        """What a file tells; None when it is cut or gone."""
        record = next(lines_of(file), {})
        if not {"system", "job", "host", "log"} <= record.keys():
            return None
        return cls(
            file.parent.name,
            str(record["system"]),
            str(record["job"]),
            str(record["host"]),
            str(record["log"]),
            float(record.get("time", 0.0)),
            str(record.get("birth", "")),
            options_in(record),
        )

    def write(self, file: Path) -> None:
        """Write it down."""
        facts = {key: value for key, value in asdict(self).items() if key != "name"}
        file.write_text(json.dumps(facts) + "\n", encoding="utf-8")

    @property
    def title(self) -> str:
        """What it is, in words."""
        if self.system == LOCAL:
            return f"process {self.job} on {self.host}"
        if not self.job:
            return f"a job of {self.system}, submitted on {self.host} without an answer"
        return f"job {self.job} of {self.system}, submitted on {self.host}"

    @property
    def job_name(self) -> str:
        """What the name of its job ends in."""
        return f"head-{self.name.rpartition('-')[2]}"

    def found(self) -> Self:
        """The same, with the id that the queue tells where its submission got no answer."""
        if self.job or self.system == LOCAL:
            return self
        for job, seen in (seen_by(self.system, self.host, self.options) or {}).items():
            if seen.name.endswith(self.job_name):
                return replace(self, job=job, log=self.log.replace("{job}", job))
        return self

    def is_alive(self) -> bool | None:
        """Whether it is in the queue, or lives; None where that cannot be told."""
        if self.system == LOCAL:
            is_here = self.host == socket.gethostname()
            return birth_of(int(self.job)) == self.birth if is_here else None
        queue = seen_by(self.system, self.host, self.options)
        if queue is None:
            return None
        seen = self._in(queue)
        return seen is not None and seen.state != "gone"

    def reason(self) -> str:
        """What the batch system says of it; empty if nothing."""
        queue = None if self.system == LOCAL else seen_by(self.system, self.host, self.options)
        if queue is None:
            return ""
        job = self._in(queue)
        if job is None:
            return "it has left the queue"
        if job.is_ending:
            return f"ending, {job.reason}".rstrip(", ")
        return f"{job.state} {job.reason}".strip()

    def _in(self, queue: Mapping[str, Seen]) -> Seen | None:
        """What a queue says of it; a job of another name has its id by now."""
        seen = queue.get(self.job)
        return seen if seen is not None and seen.is_of(self.name.rpartition("-")[2]) else None


def jobs_folder(output: Path) -> Path:
    """Where what works as batch jobs has its records, beside a run directory or an output."""
    whole = Path(os.path.abspath(output))  # noqa: PTH100  # "." has no name; links stay
    return whole.with_name(f"{whole.name}.jobs")


def records_folder(output: Path) -> Path:
    """The folder with the journal of a run directory, or of a file that scores go to."""
    beside = jobs_folder(output)
    return beside if not output.is_dir() and beside.is_dir() else output


def head_of(output: Path) -> Head | None:
    """What ``--detach`` has started last for a run directory or an output."""
    folder = newest(output, HEAD)
    head = None if folder is None else Head.read(folder / HEAD)
    return None if head is None else head.found()


def can_ask(system: str, host: str, options: Sequence[str] = ()) -> bool:
    """Whether the batch system that has the jobs can be asked from this machine.

    A pool of HTCondor has a queue on every machine that submits, and ids of its own in each;
    options may name one.
    """
    if system not in SYSTEMS:
        return False
    elsewhere = SYSTEMS[system].elsewhere
    is_right = elsewhere in (None, *options) or host == socket.gethostname()
    return is_right and shutil.which(SYSTEMS[system].shows) is not None


def options_in(record: Mapping[str, Any]) -> tuple[str, ...]:
    """Of a record, the options of the batch system's commands that see and end jobs."""
    return tuple(map(str, record.get("options") or ()))


def seen_by(system: str, host: str, options: Sequence[str] = ()) -> Mapping[str, Seen] | None:
    """The jobs that a batch system knows, by id; None when it cannot be asked."""
    if not can_ask(system, host, options):
        return None
    from mlaas4hep_dask.cluster.systems.registry import QUEUES

    return QUEUES[system](tuple(options)).seen()


def newest(output: Path, name: str) -> Path | None:
    """The folder, of those beside an output, whose file of a name was written last."""
    files = list(jobs_folder(output).glob(f"*/{name}"))
    return max(files, key=_time).parent if files else None


def _time(file: Path) -> float:
    try:
        return os.stat(file).st_mtime  # noqa: PTH116  # also of one that is just removed
    except OSError:
        return 0.0
