"""The records of a batch cluster: what runs it, what was seen of its jobs, and what was done."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

from mlaas4hep_dask.journal import birth_of
from mlaas4hep_dask.journal.lines import lines_of

JOBS = "jobs.jsonl"  # one JSON object a line
DRIVER = "driver.json"
OVER = ("cancelled", "lost", "gone")
BEAT = 60.0  # seconds between two signs of life of a driver
SILENCE = 86400.0  # seconds without one, after which a driver on another machine is dead


@dataclass(frozen=True)
class Driver:
    """The process that keeps the jobs of a cluster.

    Attributes
    ----------
    host, pid, birth
        Of the process; the last as `birth_of` has it.
    system, site : str
        The batch system, and the name of the site.
    options : tuple of str
        More options of the batch system's commands that see and end jobs.
    run : str
        What stands in the names of all its jobs.
    keys : str
        The folder of its certificates and of copies of credentials.
    job : str
        The job of SLURM in which it works itself; empty outside of one.
    head : str
        The folder with the records of what ``--detach`` has started, in which it works; or empty.
    scheduler : str
        The address of Dask's scheduler.
    dashboard : int or None
        The port of its dashboard, on the loopback.
    """

    host: str = ""
    pid: int = 0
    birth: str = ""
    system: str = ""
    site: str = ""
    options: tuple[str, ...] = ()
    run: str = ""
    keys: str = ""
    job: str = ""
    head: str = ""
    scheduler: str = ""
    dashboard: int | None = None

    @classmethod
    def read(cls, folder: Path) -> Self:
        """That of a folder; fields that its file lacks are empty."""
        record = next(lines_of(folder / DRIVER), {})
        return cls.of({key: record[key] for key in cls.__dataclass_fields__ if key in record})

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """One of JSON values."""
        return cls(**{**values, "options": tuple(map(str, values.get("options") or ()))})

    def write(self, folder: Path) -> None:
        """Write it down, for those who look at it from outside."""
        (folder / DRIVER).write_text(json.dumps(asdict(self)) + "\n")

    def is_alive(self) -> bool | None:
        """Whether the process lives; None where that cannot be told."""
        if self.host != socket.gethostname():
            return None
        birth = birth_of(self.pid)
        return bool(birth) and self.birth in ("", birth)


def beat(folder: Path) -> None:
    """Give a sign of life of the driver in the folder of its cluster."""
    (folder / JOBS).touch()


def is_silent(folder: Path) -> bool:
    """True when the driver of a cluster gave no sign of life for so long that it is dead."""
    signs = [0.0]
    for name in (DRIVER, JOBS):
        with suppress(OSError):
            signs.append((folder / name).stat().st_mtime)
    return time.time() - max(signs) > SILENCE


@dataclass(frozen=True)
class Job:
    """A job of a cluster.

    Attributes
    ----------
    id, group, worker : str
        Its id in the batch system, the group of its worker and the name of that.
    state : str
        ``pending``, ``running``, ``suspended``, ``held``, ``connected`` when its worker is
        there; ``lost``, ``cancelled``, ``gone``; ``leaving`` when it could not be cancelled.
    reason : str
        What was said of it last.
    log : str
        The file of what it prints; empty if that is not kept.
    """

    id: str
    group: str
    worker: str
    state: str = "pending"
    reason: str = ""
    log: str = ""

    @property
    def is_over(self) -> bool:
        """It has left the queue, as far as is known."""
        return self.state in OVER


@dataclass(frozen=True)
class Records:
    """What the records of a cluster tell.

    Attributes
    ----------
    jobs : tuple of Job
        In the order in which they were submitted.
    num_refused : int
        Jobs that the batch system refused.
    trouble : str
        Why no more jobs were submitted; empty unless it was given up.
    unanswered : tuple of str
        Workers whose jobs may be in the queue: nothing has told whether they were taken.
    """

    jobs: tuple[Job, ...] = ()
    num_refused: int = 0
    trouble: str = ""
    unanswered: tuple[str, ...] = ()

    @property
    def left(self) -> list[Job]:
        """The jobs that are in the queue, as far as is known."""
        return [job for job in self.jobs if not job.is_over]


def read(folder: Path) -> Records:
    """The records in the folder of a cluster."""
    jobs: dict[str, Job] = {}
    num_refused, trouble = 0, ""
    stuck: set[str] = set()  # jobs that could not be cancelled, and were not seen to go
    unanswered: dict[str, None] = {}  # in their order
    for record in lines_of(folder / JOBS):
        event, id_ = record.get("event"), str(record.get("job", ""))
        text = str(record.get("text", ""))
        job, worker = jobs.get(id_), str(record.get("worker", ""))
        if event == "submitted":
            group = str(record.get("group", ""))
            jobs[id_] = Job(id_, group, worker, log=str(record.get("log", "")))
            unanswered.pop(worker, None)
        elif event == "refused":
            num_refused += 1
            unanswered.pop(worker, None)
        elif event == "unanswered":
            unanswered[worker] = None
        elif event == "gave up":
            trouble = text
        elif job is None:
            continue
        elif event == "told":
            state = str(record.get("state") or job.state)
            jobs[id_] = replace(job, state=state, reason=text.partition("\n")[0])
        elif event == "not cancelled":
            stuck.add(id_)
        elif event in ("cancelled", "gone"):
            stuck.discard(id_)
            if job.state not in OVER:
                jobs[id_] = replace(job, state=str(event))
    states = tuple(
        replace(job, state="leaving") if job.id in stuck else job for job in jobs.values()
    )
    return Records(states, num_refused, trouble, tuple(unanswered))


def add(folder: Path, record: Mapping[str, Any]) -> None:
    """Append to the records in the folder of a cluster."""
    with (folder / JOBS).open("a") as file:
        file.write(json.dumps(record) + "\n")
