"""The batch jobs of a run, from the records beside its folder, and from the queue if it is here."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from mlaas4hep_dask.cluster.batch import records
from mlaas4hep_dask.cluster.batch.records import DRIVER, Driver, Job, Records
from mlaas4hep_dask.cluster.batch.views import jobs_of_run
from mlaas4hep_dask.detached.head import jobs_folder, newest, seen_by


@dataclass(frozen=True)
class Jobs:
    """The jobs of the cluster that a run had last.

    Attributes
    ----------
    folder : Path
        Where its records are.
    driver : Driver
        What submitted them.
    records : Records
        What it wrote down; where the queue was asked, with the states that it tells.
    is_asked : bool
        The queue has told of the states.
    earlier : tuple of Jobs
        Of clusters that the run had before, those with jobs that are left.
    """

    folder: Path
    driver: Driver
    records: Records
    is_asked: bool = False
    earlier: tuple[Jobs, ...] = ()

    @property
    def left(self) -> list[Job]:
        """Those that are in the queue, as far as is known."""
        return self.records.left


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
    jobs = Jobs(folder, Driver.read(folder), records.read(folder))
    return _with_queue(jobs) if jobs.left or jobs.records.unanswered else jobs


def cancel(system: str, ids: Iterable[str], options: Iterable[str]) -> str:
    """End jobs; what the batch system says against it, as of some that have ended, or nothing."""
    from mlaas4hep_dask.cluster.systems.registry import QUEUES

    return QUEUES[system](tuple(options)).cancel(list(ids))


def cancel_command(system: str, ids: Iterable[str], options: Iterable[str]) -> str:
    """The command that ends jobs, as a shell takes it."""
    from mlaas4hep_dask.cluster.systems.registry import QUEUES

    return shlex.join(QUEUES[system](tuple(options)).cancel_command(list(ids)))


def _with_queue(recorded: Jobs) -> Jobs:
    """The jobs, with what the batch system says of those that are not over.

    What else has the run in its name is there too: a submission without an answer, or a job that
    counted as gone since an answer lacked it.
    """
    driver = recorded.driver
    queue = seen_by(driver.system, driver.host, driver.options)
    if queue is None:
        return recorded
    jobs = []
    for job in recorded.records.jobs:
        if not job.is_over:
            now = queue.get(job.id)
            if now is None or not now.is_of(job.worker):
                job = replace(job, state="gone", reason="")
            elif now.state == "gone":
                job = replace(job, state="gone", reason=now.reason)
            elif now.state != "running" or job.state != "connected":
                job = replace(job, state=now.state, reason=now.reason or job.reason)
        jobs.append(job)
    known = {job.id for job in jobs if not job.is_over}
    own = jobs_of_run(queue, f"{driver.run}-" if driver.run else "")
    more = {job: worker for job, worker in own.items() if job not in known}
    jobs = [job for job in jobs if job.id not in more]
    for job_id, worker in more.items():
        seen = queue[job_id]
        jobs.append(Job(job_id, worker.partition("-")[0], worker, seen.state, seen.reason))
    return replace(recorded, records=replace(recorded.records, jobs=tuple(jobs)), is_asked=True)
