"""Begins a run that works on when the command has ended: in a batch job, or a process apart."""

from __future__ import annotations

import os
import secrets
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from mlaas4hep_dask.config import Config
from mlaas4hep_dask.errors import ConfigError, writing
from mlaas4hep_dask.journal import birth_of
from mlaas4hep_dask.places import LOCAL, SYSTEMS
from mlaas4hep_dask.run.directory import RunDirectory, jobs_folder
from mlaas4hep_dask.run.head import HEAD, VARIABLE, Head, head_of


def detach(config: Config, words: Sequence[str]) -> list[str]:
    """Begin a run apart from this process; the lines that say what was begun.

    Parameters
    ----------
    config : Config
        Of the run.
    words : sequence of str
        The options of ``mlaas4hep run`` that do it, in the current folder.

    Raises
    ------
    ConfigError
        When a run of that folder is at work, or waits in a queue.
    ClusterError
        When the batch system refuses the job, or is not here.
    """
    path = Path(os.path.abspath(config.output))  # noqa: PTH100  # links stay
    earlier = head_of(path)
    if earlier is not None and earlier.is_alive():
        raise ConfigError(
            f"a run for {path} was begun already: {earlier.title}; mlaas4hep stop ends it",
            key="output",
        )
    with RunDirectory(path):  # else another run is writing to it
        pass
    token = secrets.token_hex(3)
    folder = jobs_folder(path) / f"{time.strftime('%Y%m%d-%H%M%S')}-head-{token}"
    with writing(folder):
        folder.mkdir(parents=True)
    command = ["-m", "mlaas4hep_dask", "run", *words]
    if config.cluster.address in SYSTEMS:
        head = _submit(config, command, folder, token)
    else:
        head = _start(command, folder)
    with writing(folder / HEAD):
        head.write(folder / HEAD)
    run = shlex.quote(config.output)
    log = f"it prints into {head.log}" if head.log else "the site keeps no log of it"
    return [
        f"{head.title}: {log}",
        f"follow it: mlaas4hep attach {run}",
        f"how it stands: mlaas4hep status {run}",
        f"end it: mlaas4hep stop {run}",
    ]


def _submit(config: Config, command: Sequence[str], folder: Path, token: str) -> Head:
    """Submit the batch job in which a run works."""
    from mlaas4hep_dask.cluster.batch.queue import QUEUES
    from mlaas4hep_dask.cluster.places.batch import site_of
    from mlaas4hep_dask.cluster.sites import head_script

    site = site_of(config.cluster)
    script = head_script(
        site,
        command,
        name=f"head-{token}",
        folder=Path.cwd(),
        logs=folder,
        variables={VARIABLE: folder.name},
    )
    now = time.time()
    job = QUEUES[site.system]().submit(script, folder / "head.sh")
    log = script.log_of(job)
    printed = "" if log is None else str(log)
    return Head(folder.name, site.system, job, socket.gethostname(), printed, now)


def _start(command: Sequence[str], folder: Path) -> Head:
    """Start the process in which a run works; a terminal that is closed does not end it."""
    log, now = folder / "head.log", time.time()
    with log.open("ab") as said:
        process = subprocess.Popen(  # noqa: S603  # this package
            [sys.executable, *command],
            env={**os.environ, VARIABLE: folder.name},
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    birth = birth_of(process.pid)
    return Head(folder.name, LOCAL, str(process.pid), socket.gethostname(), str(log), now, birth)
