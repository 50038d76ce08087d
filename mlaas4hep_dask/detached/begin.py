"""Begins work that goes on when its command has ended: in a batch job, or a process apart."""

from __future__ import annotations

import os
import secrets
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mlaas4hep_dask.config import Cluster
from mlaas4hep_dask.detached.head import HEAD, Head, head_of, jobs_folder
from mlaas4hep_dask.detached.leftovers import CREDENTIALS, remove_left_secrets
from mlaas4hep_dask.errors import ClusterError, ConfigError, writing
from mlaas4hep_dask.journal import birth_of
from mlaas4hep_dask.places import LOCAL, SYSTEMS, VARIABLE


def require_none(output: str) -> None:
    """Raise a ConfigError when something is at work for an output, or waits in a queue."""
    path = Path(os.path.abspath(output))  # noqa: PTH100  # links stay
    earlier = head_of(path)
    if earlier is not None and earlier.is_alive():
        raise ConfigError(
            f"a run for {path} was begun already: {earlier.title}; mlaas4hep stop ends it",
            key="output",
        )


def begin(verb: str, words: Sequence[str], *, cluster: Cluster, output: str) -> list[str]:
    """Begin a verb apart from this process; the lines that say what was begun.

    Parameters
    ----------
    verb : str
        Of ``mlaas4hep``.
    words : sequence of str
        What comes after it, in the current folder; ``--detach`` is left out.
    cluster : Cluster
        Where it computes.
    output : str
        The run directory or the file that it will write.

    Raises
    ------
    ClusterError
        When the batch system refuses the job, is not here, or does not say whether it has the job.
    """
    remove_left_secrets(Path(output))
    token = secrets.token_hex(3)
    folder = jobs_folder(Path(output)) / f"{time.strftime('%Y%m%d-%H%M%S')}-head-{token}"
    with writing(folder):
        folder.mkdir(parents=True)
    command = ["-m", "mlaas4hep_dask", verb, *(word for word in words if word != "--detach")]
    if cluster.address in SYSTEMS:
        head = _submit(cluster, command, folder, output)
    else:
        head = _start(command, folder)
    with writing(folder / HEAD):
        head.write(folder / HEAD)
    name = shlex.quote(output)
    log = f"it prints into {head.log}" if head.log else "the site keeps no log of it"
    return [
        f"{head.title}: {log}",
        f"follow it: mlaas4hep attach {name}",
        f"how it stands: mlaas4hep status {name}",
        f"end it: mlaas4hep stop {name}",
    ]


def _submit(cluster: Cluster, command: Sequence[str], folder: Path, output: str) -> Head:
    """Submit the batch job in which a command works."""
    from mlaas4hep_dask.cluster.places.batch import site_of
    from mlaas4hep_dask.cluster.sites import Carried, head_script, make_log_folders
    from mlaas4hep_dask.cluster.sites.carried import FOLDER
    from mlaas4hep_dask.cluster.systems.queue import RefusedError, UnansweredError
    from mlaas4hep_dask.cluster.systems.registry import QUEUES

    site = site_of(cluster)
    make_log_folders(site)
    credentials = (folder / CREDENTIALS).absolute()
    copies = Carried(site, credentials)
    host, options = socket.gethostname(), site.queue_options
    head = Head(folder.name, site.system, "", host, "", time.time(), options=options)
    try:
        script = head_script(
            site,
            command,
            name=head.job_name,
            folder=Path.cwd(),
            logs=folder,
            variables={VARIABLE: folder.name, FOLDER: str(credentials)},
            credentials=copies.files,
        )
        head = replace(head, log=script.log or "")
        with writing(folder / HEAD):  # first of all: without an answer it is found by its name
            head.write(folder / HEAD)
    except BaseException:
        copies.remove()
        raise
    try:
        job = QUEUES[site.system](options).submit(script, folder / "head.sh")
    except UnansweredError as error:
        raise ClusterError(
            f"{error}; the job may be in the queue all the same, as {head.job_name}: "
            f"mlaas4hep stop {shlex.quote(output)} ends it"
        ) from error
    except RefusedError:
        (folder / HEAD).unlink()
        copies.remove()
        raise
    log = script.log_of(job)
    return replace(head, job=job, log="" if log is None else str(log))


def _start(command: Sequence[str], folder: Path) -> Head:
    """Start the process in which a command works; a terminal that is closed does not end it."""
    log, now = folder / "head.log", time.time()
    with log.open("ab") as output:
        process = subprocess.Popen(  # noqa: S603  # this package
            [sys.executable, *command],
            env={**os.environ, VARIABLE: folder.name},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    birth = birth_of(process.pid)
    return Head(folder.name, LOCAL, str(process.pid), socket.gethostname(), str(log), now, birth)
