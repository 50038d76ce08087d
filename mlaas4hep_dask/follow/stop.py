"""Ends a run wherever it works, and says what is left of it."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import click
import psutil

from mlaas4hep_dask.command import SUCCESS, TROUBLE
from mlaas4hep_dask.detached.head import Head, head_of
from mlaas4hep_dask.detached.leftovers import remove_left_secrets
from mlaas4hep_dask.errors import ClusterError
from mlaas4hep_dask.follow.jobs import Jobs, cancel, cancel_command, jobs_in, jobs_of
from mlaas4hep_dask.follow.page import fate
from mlaas4hep_dask.follow.standing import AT_WORK, Standing, is_at_work, look
from mlaas4hep_dask.places import LOCAL

POLL = 0.2  # seconds between two looks at a process of this machine


@dataclass(frozen=True)
class Times:
    """How long an end is waited for, in seconds.

    Attributes
    ----------
    patience : float
        In all: a process takes up to 30 s to clean up, a batch system its own time.
    again : float
        After which jobs that stay are ended again.
    look : float
        Between two looks at a queue, which others share.
    settle : float
        In which a job may come whose submission got no answer.
    """

    patience: float = 90.0
    again: float = 15.0
    look: float = 3.0
    settle: float = 60.0


TIMES = Times()


def stop(folder: Path, *, times: Times = TIMES) -> int:
    """End a run, wait until it has ended, and say what is left; the exit status.

    Parameters
    ----------
    folder : Path
        The run directory.
    times : Times
        For how long the end is waited for.

    Raises
    ------
    ClusterError
        When it works on another machine, or does not end.
    """
    standing = look(folder)
    if standing.head is not None and not standing.head.job:
        click.echo(f"looking for {standing.head.title}")
        settle = standing.head.time + times.settle - time.time()
        _wait(lambda: (found := head_of(folder)) is None or bool(found.job), settle, times.look)
        standing = look(folder)
    run, head = standing.run, standing.head
    if run is not None and standing.is_here:
        click.echo(f"ending process {run.process} on {run.host}")
        _end_process(run.process, lambda: is_at_work(run) is True, times)
    elif standing.state in AT_WORK:
        _end_elsewhere(standing, head, times)
    else:
        click.echo(f"nothing to end: {fate(standing, datetime.now(UTC))}")
    if head is not None:
        pause = POLL if head.system == LOCAL else times.look
        if not _wait(lambda: head.is_alive() is not True, times.patience, pause):
            raise ClusterError(
                f"{head.title} has not ended for {times.patience:.0f} s", job=head.job
            )
    remove_left_secrets(folder)
    return _end_jobs(folder, times)


def _end_process(process: int, lives: Callable[[], bool], times: Times) -> None:
    """Ask a process to end and wait for it and for all that it started."""
    started: list[psutil.Process] = []
    with suppress(psutil.Error):
        started = psutil.Process(process).children(recursive=True)
    with suppress(ProcessLookupError):  # it has just ended, perhaps between the two
        os.kill(process, signal.SIGTERM)
        os.kill(process, signal.SIGCONT)  # one that is suspended hears nothing
    if not _wait(lambda: not lives(), times.patience, POLL):
        raise ClusterError(
            f"process {process} has not ended for {times.patience:.0f} s; kill -9 {process} ends "
            "it",
            process=process,
        )
    _, survivors = psutil.wait_procs(started, timeout=10)
    if survivors:
        numbers = " ".join(str(each.pid) for each in survivors)
        raise ClusterError(
            f"processes that it started are left; kill -9 {numbers} ends them", process=process
        )


def _end_elsewhere(standing: Standing, head: Head | None, times: Times) -> None:
    """End what a run works in that is detached, or say where the run can be ended."""
    if head is not None and head.is_alive():
        click.echo(f"ending {head.title}")
        if head.system == LOCAL:
            _end_process(int(head.job), lambda: head.is_alive() is True, times)
        else:
            cancel(head.system, [head.job], head.options)
        return
    if head is not None and head.is_alive() is None and head.system != LOCAL:
        raise ClusterError(
            f"the run works in {head.title}, which cannot be reached from here: end it there, "
            f"with\n  {cancel_command(head.system, [head.job or head.job_name], head.options)}",
            host=head.host,
        )
    host = standing.run.host if standing.run is not None else head.host if head is not None else ""
    verb = shlex.join(
        [sys.executable, "-m", "mlaas4hep_dask", "stop", str(standing.folder.absolute())]
    )
    raise ClusterError(
        f"the run works on {host}: end it there, with\n  ssh {host} {shlex.quote(verb)}", host=host
    )


def _end_jobs(folder: Path, times: Times) -> int:
    """End the jobs that a run has left in the queue, and say what there is then."""
    jobs = jobs_of(folder)
    if jobs is None:
        click.echo("nothing is left of it but its folder")
        return SUCCESS
    for cluster in (*jobs.earlier, jobs):
        if cluster.left and cluster.is_asked:
            ids = [job.id for job in cluster.left]
            click.echo(f"ending {len(ids)} jobs that it left in the queue: {' '.join(ids)}")
            _cancel(cluster, times)
    jobs = jobs_of(folder) or jobs
    clusters = [each for each in (*jobs.earlier, jobs) if each.left]
    for cluster in clusters:
        _say_left(cluster)
    if not clusters:
        click.echo(f"nothing is left of it but its folder and {jobs.folder}")
    return TROUBLE if clusters else SUCCESS


def _cancel(cluster: Jobs, times: Times) -> None:
    """End the jobs of a cluster, and again those that stay, until none is left or it takes long."""
    end, words = time.monotonic() + times.patience, ""
    jobs, driver = cluster, cluster.driver
    while jobs.left and time.monotonic() < end:
        words = cancel(driver.system, [job.id for job in jobs.left], driver.options)
        _wait(lambda: not jobs_in(cluster.folder).left, times.again, times.look)
        now = jobs_in(cluster.folder)
        if now.is_asked or not now.left:  # else the records alone tell, of ids given again too
            jobs = now
    if jobs.left and words:
        click.echo(words, err=True)


def _say_left(jobs: Jobs) -> None:
    """Say which jobs may be in the queue, and what ends them."""
    ids = [job.id for job in jobs.left]
    verb = "are" if jobs.is_asked else "may be"
    where = "" if jobs.is_asked else f", on {jobs.driver.host}"
    click.echo(
        f"{len(ids)} jobs {verb} in the queue of {jobs.driver.system}; to end them{where}:\n"
        f"  {cancel_command(jobs.driver.system, ids, jobs.driver.options)}",
        err=True,
    )


def _wait(is_over: Callable[[], bool], seconds: float, pause: float) -> bool:
    """Wait until something is over; False when that takes too long."""
    end = time.monotonic() + seconds
    while not is_over():
        if time.monotonic() > end:
            return False
        time.sleep(pause)
    return True
