"""The batch jobs of a run, from the records beside its folder, and from the queue if it is here."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import socket
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from mlaas4hep_dask.journal import birth_of
from mlaas4hep_dask.run.directory import jobs_folder

JOBS, DRIVER, HEAD = "jobs.jsonl", "driver.json", "head.json"
COMMANDS = {"slurm": "squeue", "htcondor": "condor_q"}
OVER = ("cancelled", "lost", "gone")
LOCAL = "local"  # of a head: a process of this machine, no job


@dataclass(frozen=True)
class Job:
    """A job of a run.

    Attributes
    ----------
    id, group, worker : str
        Its id in the batch system, the group of its worker and the name of that.
    state : str
        ``pending``, ``running``, ``held``, ``connected`` when its worker is there; ``lost``,
        ``cancelled``, ``gone``.
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
class Jobs:
    """The jobs of the cluster that a run had last.

    Attributes
    ----------
    folder : Path
        Where its records are.
    system : str
        ``slurm`` or ``htcondor``; empty when nothing tells.
    site : str
        The name of the site.
    host : str
        The machine that submitted them.
    jobs : tuple of Job
        In the order in which they were submitted.
    num_refused : int
        Jobs that the batch system refused.
    trouble : str
        Why no more jobs were submitted; empty unless it was given up.
    is_asked : bool
        The queue has told of the states.
    """

    folder: Path
    system: str = ""
    site: str = ""
    host: str = ""
    jobs: tuple[Job, ...] = ()
    num_refused: int = 0
    trouble: str = ""
    is_asked: bool = False

    @property
    def left(self) -> list[Job]:
        """Those that are in the queue, as far as is known."""
        return [job for job in self.jobs if not job.is_over]


@dataclass(frozen=True)
class Head:
    """What ``--detach`` has started: a batch job, or a process of a machine, that runs a run.

    Attributes
    ----------
    system : str
        ``slurm``, ``htcondor`` or ``local``.
    job : str
        Its id, or the number of the process.
    host : str
        Where it was submitted or started.
    log : str
        The file of what it prints.
    time : float
        Seconds since 1970, when it was started.
    birth : str
        Of a process, as `birth_of` has it.
    """

    system: str
    job: str
    host: str
    log: str
    time: float = 0.0
    birth: str = ""

    @classmethod
    def read(cls, file: Path) -> Self | None:
        """What a file tells; None when it is cut or gone."""
        told = next(lines_of(file), {})
        if not {"system", "job", "host", "log"} <= told.keys():
            return None
        return cls(
            str(told["system"]),
            str(told["job"]),
            str(told["host"]),
            str(told["log"]),
            float(told.get("time", 0.0)),
            str(told.get("birth", "")),
        )

    def is_alive(self) -> bool | None:
        """Whether it is in the queue, or lives; None where that cannot be told."""
        if self.system == LOCAL:
            is_here = self.host == socket.gethostname()
            return birth_of(int(self.job)) == self.birth if is_here else None
        seen = _seen(self.system, self.host)
        if seen is None:
            return None
        return self.job in seen and seen[self.job].state != "gone"

    def reason(self) -> str:
        """What the batch system says of it; empty if nothing."""
        seen = None if self.system == LOCAL else _seen(self.system, self.host)
        found = (seen or {}).get(self.job)
        return "" if found is None else f"{found.state} {found.reason}".strip()


def head_of(run: Path) -> Head | None:
    """What ``--detach`` has started last for a run."""
    found = _newest(run, HEAD)
    return None if found is None else Head.read(found / HEAD)


def jobs_of(run: Path, *, ask: bool = True) -> Jobs | None:
    """The jobs of the cluster that a run had last; None when it had none.

    Parameters
    ----------
    run : Path
        The run directory.
    ask : bool
        Whether the batch system is asked too, where its commands are there.
    """
    folder = _newest(run, DRIVER)
    if folder is None:
        return None
    driver = next(lines_of(folder / DRIVER), {})
    found = replace(
        _recorded(folder),
        system=str(driver.get("system", "")),
        site=str(driver.get("site", "")),
        host=str(driver.get("host", "")),
    )
    return _asked(found) if ask and found.left else found


def jobs_in(folder: Path) -> tuple[Job, ...]:
    """The jobs of one cluster, as its records tell."""
    return _recorded(folder).jobs


def cancel(system: str, ids: Iterable[str]) -> None:
    """End jobs; those that have ended are left alone."""
    from mlaas4hep_dask.cluster.batch.queue import QUEUES

    QUEUES[system]().cancel(list(ids))


def cancel_command(system: str, ids: Iterable[str]) -> str:
    """The command that ends jobs."""
    return shlex.join([{"slurm": "scancel", "htcondor": "condor_rm"}[system], *ids])


def can_ask(system: str, host: str) -> bool:
    """Whether the batch system that has the jobs can be asked from this machine.

    A pool of HTCondor has a queue on every machine that submits, and ids of its own in each.
    """
    command = COMMANDS.get(system)
    is_right = system != "htcondor" or host == socket.gethostname()
    return command is not None and is_right and shutil.which(command) is not None


def lines_of(file: Path) -> Iterator[Mapping[str, Any]]:
    """The objects of a file with one in each line; a line that was cut is left out."""
    try:
        content = file.read_bytes()
    except OSError:
        return
    for line in content.split(b"\n"):
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            yield value


def _newest(run: Path, name: str) -> Path | None:
    """The folder, of the clusters of a run, whose file of a name was written last."""
    found = list(jobs_folder(run).glob(f"*/{name}"))
    return max(found, key=_time).parent if found else None


def _time(file: Path) -> float:
    try:
        return os.stat(file).st_mtime  # noqa: PTH116  # also of one that is just removed
    except OSError:
        return 0.0


def _recorded(folder: Path) -> Jobs:
    jobs: dict[str, Job] = {}
    num_refused, trouble = 0, ""
    for told in lines_of(folder / JOBS):
        event, id_, text = told.get("event"), str(told.get("job", "")), str(told.get("text", ""))
        job = jobs.get(id_)
        if event == "submitted":
            group, worker = str(told.get("group", "")), str(told.get("worker", ""))
            jobs[id_] = Job(id_, group, worker, log=str(told.get("log", "")))
        elif event == "refused":
            num_refused += 1
        elif event == "gave up":
            trouble = text
        elif event == "told" and job is not None:
            state = str(told.get("state") or job.state)
            jobs[id_] = replace(job, state=state, reason=text.partition("\n")[0])
        elif event == "cancelled" and job is not None and job.state != "lost":
            jobs[id_] = replace(job, state="cancelled")
    return Jobs(folder, jobs=tuple(jobs.values()), num_refused=num_refused, trouble=trouble)


def _asked(found: Jobs) -> Jobs:
    """The jobs, with what the batch system says of those that are not over."""
    seen = _seen(found.system, found.host)
    if seen is None:
        return found
    jobs = []
    for job in found.jobs:
        if not job.is_over:
            now = seen.get(job.id)
            if now is None or now.state == "gone":
                job = replace(job, state="gone", reason="" if now is None else now.reason)
            elif now.state != "running" or job.state != "connected":
                job = replace(job, state=now.state, reason=now.reason or job.reason)
        jobs.append(job)
    return replace(found, jobs=tuple(jobs), is_asked=True)


def _seen(system: str, host: str) -> Mapping[str, Any] | None:
    if not can_ask(system, host):
        return None
    from mlaas4hep_dask.cluster.batch.queue import QUEUES

    return QUEUES[system]().seen()
