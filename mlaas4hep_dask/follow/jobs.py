"""The batch jobs of a run, from the records beside its folder, and from the queue if it is here."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from mlaas4hep_dask.detached.head import lines_of, newest, options_in, seen_by

JOBS, DRIVER = "jobs.jsonl", "driver.json"
OVER = ("cancelled", "lost", "gone")


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
    options : tuple of str
        More options of the batch system's commands that see and end jobs.
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
    options: tuple[str, ...] = ()
    jobs: tuple[Job, ...] = ()
    num_refused: int = 0
    trouble: str = ""
    is_asked: bool = False

    @property
    def left(self) -> list[Job]:
        """Those that are in the queue, as far as is known."""
        return [job for job in self.jobs if not job.is_over]


def jobs_of(run: Path) -> Jobs | None:
    """The jobs of the cluster that a run had last; None when it had none.

    The batch system is asked too, where its commands are there.

    Parameters
    ----------
    run : Path
        The run directory.
    """
    folder = newest(run, DRIVER)
    if folder is None:
        return None
    driver = next(lines_of(folder / DRIVER), {})
    jobs = replace(
        _recorded(folder),
        system=str(driver.get("system", "")),
        site=str(driver.get("site", "")),
        host=str(driver.get("host", "")),
        options=options_in(driver),
    )
    return _with_queue(jobs) if jobs.left else jobs


def jobs_in(folder: Path) -> tuple[Job, ...]:
    """The jobs of one cluster, as its records tell."""
    return _recorded(folder).jobs


def cancel(system: str, ids: Iterable[str], options: Iterable[str] = ()) -> None:
    """End jobs; those that have ended are left alone."""
    from mlaas4hep_dask.cluster.batch.queue import QUEUES

    QUEUES[system](tuple(options)).cancel(list(ids))


def cancel_command(system: str, ids: Iterable[str], options: Iterable[str] = ()) -> str:
    """The command that ends jobs, as a shell takes it."""
    from mlaas4hep_dask.cluster.batch.queue import QUEUES

    return shlex.join(QUEUES[system](tuple(options)).cancel_command(list(ids)))


def _recorded(folder: Path) -> Jobs:
    jobs: dict[str, Job] = {}
    num_refused, trouble = 0, ""
    for record in lines_of(folder / JOBS):
        event, id_ = record.get("event"), str(record.get("job", ""))
        text = str(record.get("text", ""))
        job = jobs.get(id_)
        if event == "submitted":
            group, worker = str(record.get("group", "")), str(record.get("worker", ""))
            jobs[id_] = Job(id_, group, worker, log=str(record.get("log", "")))
        elif event == "refused":
            num_refused += 1
        elif event == "gave up":
            trouble = text
        elif event == "told" and job is not None:
            state = str(record.get("state") or job.state)
            jobs[id_] = replace(job, state=state, reason=text.partition("\n")[0])
        elif event == "cancelled" and job is not None and job.state != "lost":
            jobs[id_] = replace(job, state="cancelled")
    return Jobs(folder, jobs=tuple(jobs.values()), num_refused=num_refused, trouble=trouble)


def _with_queue(recorded: Jobs) -> Jobs:
    """The jobs, with what the batch system says of those that are not over."""
    queue = seen_by(recorded.system, recorded.host, recorded.options)
    if queue is None:
        return recorded
    jobs = []
    for job in recorded.jobs:
        if not job.is_over:
            now = queue.get(job.id)
            if now is None or now.state == "gone":
                job = replace(job, state="gone", reason="" if now is None else now.reason)
            elif now.state != "running" or job.state != "connected":
                job = replace(job, state=now.state, reason=now.reason or job.reason)
        jobs.append(job)
    return replace(recorded, jobs=tuple(jobs), is_asked=True)
