"""Prints the ends of the logs of a run's jobs."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from mlaas4hep_dask.cluster.batch import records
from mlaas4hep_dask.cluster.batch.records import Job
from mlaas4hep_dask.detached.head import HEAD, Head, jobs_folder, records_folder
from mlaas4hep_dask.errors import RecordError, did_you_mean
from mlaas4hep_dask.follow.standing import AT_WORK, look
from mlaas4hep_dask.journal.read import JOURNAL

MAX_LOGS = 20  # that are shown unless one is chosen
TAIL_BYTES = 2**16
POLL = 0.5  # seconds


@dataclass(frozen=True)
class Log:
    """The log of a job, or of the head of a run."""

    file: Path
    job: str
    worker: str
    title: str


def logs_of(folder: Path) -> list[Log]:
    """All logs of a run, those of its last cluster last."""
    all_logs: list[Log] = []
    clusters = jobs_folder(folder)
    for cluster in sorted(clusters.iterdir()) if clusters.is_dir() else []:
        jobs = records.read(cluster).jobs
        logs = [_log(job) for job in jobs if job.log]
        files = {log.file for log in logs}
        all_logs += [
            Log(file, "", file.stem, "not of a job")
            for file in sorted(cluster.glob("logs/*.log"))
            if file not in files
        ]
        all_logs += logs
        if (cluster / HEAD).exists():
            head = Head.read(cluster / HEAD)
            head = None if head is None else head.found()
            if head is not None and head.log:
                all_logs.append(Log(Path(head.log), head.job, "head", head.title))
    return [log for log in all_logs if log.file.exists()]


def chosen(logs: Sequence[Log], names: Sequence[str], folder: Path) -> list[Log]:
    """The logs of some jobs, by id, worker or group; all if none is named.

    Raises
    ------
    RecordError
        When there is no log of one.
    """
    matching: list[Log] = []
    for name in names:
        some = [each for each in logs if name in (each.job, each.worker, each.file.name)]
        some = some or [each for each in logs if each.worker.startswith(f"{name}-")]
        if not some:
            words = [word for each in logs for word in (each.job, each.worker) if word]
            near = did_you_mean(name, words)
            raise RecordError(
                f"{folder}: no log of a job or worker {name!r}{near}", file=str(folder)
            )
        matching += [each for each in some if each not in matching]
    return matching if names else list(logs)


def show(
    folder: Path,
    names: Sequence[str],
    *,
    lines: int,
    follow: bool,
    wait: Callable[[float], None] = time.sleep,
) -> None:
    """Print names, sizes and last lines of logs.

    Parameters
    ----------
    folder : Path
        The run directory.
    names : sequence of str
        Ids, workers or groups of jobs; all if there is none.
    lines : int
        Of each log.
    follow : bool
        Go on with what is written to them, until the run ends.
    wait : callable
        Waits so many seconds between two looks.
    """
    standing = look(folder)
    logs = chosen(logs_of(folder), names, folder)
    if not logs and not (follow and standing.state in AT_WORK and jobs_folder(folder).is_dir()):
        run = standing.run
        where = "" if run is None else f" on {run.host}"
        click.echo(
            f"no logs: the workers of this run are no batch jobs but processes{where}; what they "
            f"say stands in {records_folder(folder) / JOURNAL}, and mlaas4hep attach {folder} "
            "prints it"
        )
        return
    if not names:
        logs.sort(key=lambda log: log.file.stat().st_mtime)
        if len(logs) > MAX_LOGS:
            more = len(logs) - MAX_LOGS
            click.echo(f"({more} older logs in {jobs_folder(folder)}; --job chooses)")
        logs = logs[-MAX_LOGS:]
    offsets = {log.file: _show_end(log, lines) for log in logs}
    while follow:
        is_over = look(folder).state not in AT_WORK
        for log in logs_of(folder) if not names else chosen(logs_of(folder), names, folder):
            offsets[log.file] = _show_new(log, offsets.get(log.file, 0))
        if is_over:
            return
        wait(POLL)


def _log(job: Job) -> Log:
    return Log(Path(job.log), job.id, job.worker, f"job {job.id}, {job.worker}, {job.state}")


def _show_end(log: Log, lines: int) -> int:
    """Print the end of a log; its size."""
    size = log.file.stat().st_size
    click.echo(f"== {log.file} ({log.title}), {size:,} bytes")
    with log.file.open("rb") as file:
        start = max(0, size - TAIL_BYTES)
        content = os.pread(file.fileno(), size - start, start)
    for line in _lines(content)[-lines:]:
        click.echo(line)
    return size


def _show_new(log: Log, offset: int) -> int:
    """Print the whole lines that a log has beyond a place; the place after them."""
    with log.file.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        content = os.pread(file.fileno(), min(size - offset, TAIL_BYTES), offset)
    whole = content[: content.rfind(b"\n") + 1]
    for line in _lines(whole):
        click.echo(f"{log.worker}: {line}")
    return offset + len(whole)


def _lines(content: bytes) -> list[str]:
    return content.decode("utf-8", "replace").splitlines()
