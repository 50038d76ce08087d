"""Ends what a driver that is dead has left behind: jobs in the queue, and secrets."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from mlaas4hep_dask.cluster.batch import records
from mlaas4hep_dask.cluster.batch.records import DRIVER, Driver
from mlaas4hep_dask.cluster.batch.views import Seen
from mlaas4hep_dask.cluster.secrets import remove_secrets
from mlaas4hep_dask.cluster.systems.queue import Queue
from mlaas4hep_dask.cluster.systems.registry import QUEUES

logger = logging.getLogger(__name__)

SETTLE = 15.0  # seconds in which a command that submits, and outlived its driver, has done so
SWEEP = 300.0  # seconds in which a batch system that does not answer is asked again
PAUSE = 2.0


def sweep(driver: Driver, folder: Path) -> None:
    """Remove the keys of a driver that has just died, and end its jobs until there are none.

    Parameters
    ----------
    driver : Driver
        That is dead.
    folder : Path
        Of its records.
    """
    _remove_keys(driver)
    queue = QUEUES[driver.system](driver.options)
    began = time.monotonic()
    while time.monotonic() < began + SWEEP:
        jobs = _in_queue(driver, folder, queue.seen())
        if jobs:
            _end(jobs, folder, queue)
        elif jobs is not None and time.monotonic() > began + SETTLE:
            _refuse(folder)
            return
        time.sleep(PAUSE)


def end_earlier(clusters: Path) -> None:
    """End what earlier drivers have left behind, and say so.

    Parameters
    ----------
    clusters : Path
        In which each cluster has a folder. Those whose driver lives, or may live on another
        machine, are left alone.
    """
    for file in sorted(clusters.glob(f"*/{DRIVER}")):
        folder = file.parent
        driver = Driver.read(folder)
        if driver.system not in QUEUES or driver.is_alive():
            continue
        recorded = records.read(folder)
        jobs = {job.id: job.worker for job in recorded.left}
        queue = QUEUES[driver.system](driver.options)
        view = queue.seen() if jobs or recorded.unanswered else None
        is_dead = driver.is_alive() is False or _was_started_again(driver)
        if not is_dead and not _has_lost_its_job(driver, folder, view):
            if records.is_silent(folder):  # its jobs have ended by themselves
                _remove_keys(driver)
            continue
        _remove_keys(driver)
        if view is None:
            continue
        rest = _in_queue(driver, folder, view) or {}
        for job in jobs.keys() - rest.keys():
            _record(folder, "gone", job, jobs[job])
        if rest:
            ids = ", ".join(rest)
            logger.warning("an earlier run left %d jobs in the queue: %s; ended", len(rest), ids)
            _end(rest, folder, queue)
        _refuse(folder)


def _remove_keys(driver: Driver) -> None:
    if driver.keys:
        remove_secrets(Path(driver.keys))


def _in_queue(
    driver: Driver, folder: Path, view: Mapping[str, Seen] | None
) -> dict[str, str] | None:
    """Workers, by id, of a driver's jobs in the queue: those on record, and those with its name."""
    if view is None:
        return None
    own = _own(driver, folder, view)
    statuses = {job: view[job] for job in own}
    return {
        job: own[job]
        for job, status in statuses.items()
        if status.state != "gone" and not status.is_ending
    }


def _own(driver: Driver, folder: Path, view: Mapping[str, Seen]) -> dict[str, str]:
    """Workers, by id, of all jobs that a batch system knows of a driver, also of ended ones."""
    jobs = {}
    recorded = {job.id: job.worker for job in records.read(folder).jobs}
    for job, status in view.items():
        worker = recorded.get(job)
        is_recorded = worker is not None and status.is_of(worker)
        is_named = bool(driver.run) and f"-{driver.run}-" in status.name
        if is_recorded or is_named:
            jobs[job] = worker or ""
    return jobs


def _was_started_again(driver: Driver) -> bool:
    """True of a driver whose job SLURM has started again, on another node, with this process.

    Two processes of one job may work side by side: only a job that was started again proves it.
    """
    queue = QUEUES[driver.system]
    return bool(driver.job) and driver.job == queue.own_job() and queue.was_started_again()


def _has_lost_its_job(driver: Driver, folder: Path, view: Mapping[str, Seen] | None) -> bool:
    """True of a driver that worked in a job which has left the queue.

    An answer without any job of the driver proves nothing: it may be one of another cluster, or of
    a batch system that fails.
    """
    if not driver.job or view is None:
        return False
    if driver.job in view:
        return view[driver.job].state == "gone"
    return bool(_own(driver, folder, view))


def _end(jobs: Mapping[str, str], folder: Path, queue: Queue) -> None:
    words = queue.cancel(list(jobs))
    for job, worker in jobs.items():
        _record(folder, "not cancelled" if words else "cancelled", job, worker, words)


def _refuse(folder: Path) -> None:
    """Write down that jobs without an answer are not in the queue, or are ended by their names."""
    for worker in records.read(folder).unanswered:
        _record(folder, "refused", "", worker, "it was not answered, and is not in the queue")


def _record(folder: Path, event: str, job: str, worker: str, text: str = "") -> None:
    record = {"time": round(time.time(), 3), "event": event, "worker": worker, "job": job}
    with suppress(OSError):
        records.add(folder, record | ({"text": text} if text else {}))
