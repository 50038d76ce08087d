"""The batch jobs of a run, from the records beside its folder, and from the queue if it is here."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from mlaas4hep_dask.cluster.batch import records
from mlaas4hep_dask.cluster.batch.records import DRIVER, Driver, Job
from mlaas4hep_dask.detached.head import jobs_folder, newest, seen_by


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
    earlier : tuple of Jobs
        Of clusters that the run had before, those with jobs that are left.
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
    earlier: tuple[Jobs, ...] = ()

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
    earlier = [
        jobs
        for file in sorted(jobs_folder(run).glob(f"*/{DRIVER}"))
        if file.parent != folder and (jobs := jobs_in(file.parent)).left
    ]
    return replace(jobs_in(folder), earlier=tuple(earlier))


def jobs_in(folder: Path) -> Jobs:
    """The jobs of one cluster, by its folder; the batch system is asked of those that are left."""
    driver, record = Driver.read(folder), records.read(folder)
    jobs = Jobs(
        folder,
        system=driver.system,
        site=driver.site,
        host=driver.host,
        options=driver.options,
        jobs=record.jobs,
        num_refused=record.num_refused,
        trouble=record.trouble,
    )
    return _with_queue(jobs, record.unanswered) if jobs.left or record.unanswered else jobs


def cancel(system: str, ids: Iterable[str], options: Iterable[str] = ()) -> str:
    """End jobs; what the batch system says against it, as of some that have ended, or nothing."""
    from mlaas4hep_dask.cluster.batch.queue import QUEUES

    return QUEUES[system](tuple(options)).cancel(list(ids))


def cancel_command(system: str, ids: Iterable[str], options: Iterable[str] = ()) -> str:
    """The command that ends jobs, as a shell takes it."""
    from mlaas4hep_dask.cluster.batch.queue import QUEUES

    return shlex.join(QUEUES[system](tuple(options)).cancel_command(list(ids)))


def _with_queue(recorded: Jobs, unanswered: Iterable[str]) -> Jobs:
    """The jobs, with what the batch system says of those that are not over.

    Those of workers whose submission got no answer are found in the queue by their names.
    """
    queue = seen_by(recorded.system, recorded.host, recorded.options)
    if queue is None:
        return recorded
    jobs = []
    for job in recorded.jobs:
        if not job.is_over:
            now = queue.get(job.id)
            if now is None or not now.is_of(job.worker):
                job = replace(job, state="gone", reason="")
            elif now.state == "gone":
                job = replace(job, state="gone", reason=now.reason)
            elif now.state != "running" or job.state != "connected":
                job = replace(job, state=now.state, reason=now.reason or job.reason)
        jobs.append(job)
    for worker in unanswered:
        for id_, seen in queue.items():
            if seen.name.endswith(f"-{worker}") and seen.state != "gone":
                jobs.append(Job(id_, worker.partition("-")[0], worker, seen.state, seen.reason))
    return replace(recorded, jobs=tuple(jobs), is_asked=True)
