"""Renders the script of a batch job with dask-jobqueue's own classes."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from mlaas4hep_dask.cluster.settings import merged
from mlaas4hep_dask.cluster.sites.environment import (
    UNPACKED,
    carried_files,
    in_shell,
    prologue_of,
    submitting,
)
from mlaas4hep_dask.cluster.sites.logs import log_folder
from mlaas4hep_dask.cluster.sites.site import Site
from mlaas4hep_dask.cluster.systems.jobs import Jobs
from mlaas4hep_dask.cluster.systems.script import Script
from mlaas4hep_dask.cluster.systems.stock import defaults
from mlaas4hep_dask.errors import ClusterError

if TYPE_CHECKING:
    from distributed.security import Security

PRELOAD = "mlaas4hep_dask.cluster.worker_setup"
PLACES = {"--host", "--interface", "--contact-address"}  # options that say where a worker listens
VARIABLE = "MLAAS4HEP_HOST"
OWN_HOST = f'${{{VARIABLE}:+--host "${VARIABLE}"}}'
# Run by a job's Python before anything of this package is there: the address from which a machine
# would speak to another one, which is that at which the other reaches it.
TOWARDS = (
    "import socket as s, sys; a = s.getaddrinfo(sys.argv[1], sys.argv[2], 0, s.SOCK_DGRAM)[0]; "
    "o = s.socket(*a[:3]); o.connect(a[4]); print(o.getsockname()[0])"
)


def job_script(
    site: Site,
    group: str,
    *,
    scheduler_address: str,
    name: str,
    security: Security | None = None,
    logs: Path | None = None,
    environment: Mapping[str, str] | None = None,
    credentials: Mapping[str, Path] | None = None,
) -> Script:
    """The script of one job of a group.

    Parameters
    ----------
    site : Site
        Where it is submitted.
    group : str
        ``readers`` or ``trainers``.
    scheduler_address : str
        Of Dask's scheduler: ``tls://host:port`` or ``tcp://host:port``.
    name : str
        Name of the worker and, after the site's prefix, of the job. Begin it with the run's id, so
        that jobs are found again.
    security : Security, optional
        Dask's, whose certificates are files. Required with ``tls://``.
    logs : Path, optional
        Folder of the logs, in the run directory. None keeps none, unless the site names a folder.
    environment : mapping of str to str, optional
        Variables of the process that submits; its own by default.
    credentials : mapping of str to Path, optional
        Copies for jobs, by ``proxy`` and ``token``: `Carried.files`.

    Raises
    ------
    ClusterError
        When there is no such group, or the site needs what was not given.
    MissingExtraError
        When dask-jobqueue is not installed.
    """
    here = os.environ if environment is None else environment
    jobs = site.jobs(group)
    files = _certificates(security)
    python = python_of(site, group)
    has_place = jobs.interface is not None or not PLACES.isdisjoint(jobs.worker_extra_args)
    worker: dict[str, Any] = {
        "scheduler": scheduler_address,
        "protocol": scheduler_address.partition("://")[0],
        "interface": jobs.interface,
        "death_timeout": f"{jobs.death_timeout:g}",
        "local_directory": jobs.local_directory and in_shell(jobs.local_directory),
        "worker_command": jobs.worker_command,
        "worker_extra_args": [
            *_arguments(site, group, files),
            *jobs.worker_extra_args,
            *([] if has_place else [OWN_HOST]),
        ],
        "python": _in_place_of_the_shell(python),
    }
    copies = carried_files(site, group, credentials or {})
    lines = prologue_of(site, group, here, copies)
    if not has_place:
        lines.append(_own_host(python, scheduler_address))
    secrets = [*files.values(), *map(str, copies.values())]
    script = script_of(site, group, worker, lines, name=name, logs=logs, files=secrets)
    return replace(script, environment=submitting(site, here))


def script_of(
    site: Site,
    group: str,
    worker: Mapping[str, Any],
    lines: list[str],
    *,
    name: str,
    logs: Path | None,
    files: Sequence[str] = (),
) -> Script:
    """The script of a job.

    Parameters
    ----------
    site : Site
        Where it is submitted.
    group : str
        ``readers``, ``trainers`` or ``head``.
    worker : mapping of str to Any
        What dask-jobqueue makes the command of a worker of; empty when the lines are all.
    lines : list of str
        The shell's, before the worker's command.
    name : str
        Of the job, after the site's prefix.
    logs : Path or None
        Folder of the logs.
    files : sequence of str
        Secret files, which are transferred with the job where its node does not see them.

    Raises
    ------
    ClusterError
        When the site needs what was not given.
    MissingExtraError
        When dask-jobqueue is not installed.
    """
    import dask

    jobs = site.jobs(group)
    _require_needs(site, jobs)
    job_name = f"{jobs.name}-{name}"
    place = log_folder(site, group) or logs
    folder = None if place is None else str(place)
    common: dict[str, Any] = {
        "scheduler": "",
        **worker,
        "name": name,
        "cores": jobs.cores,
        "memory": str(jobs.memory),
        "processes": jobs.processes,
        "job_script_prologue": lines,
        "job_directives_skip": jobs.job_directives_skip,
        "shebang": jobs.shebang,
        "job_name": job_name,
    }
    # The defaults of dask-jobqueue may have left Dask's configuration again, if somebody set a
    # key of theirs before.
    own_defaults = {site.system: jobs.own_defaults}
    config = merged(merged(defaults(), dask.config.get("jobqueue", None) or {}), own_defaults)
    with dask.config.set({"jobqueue": config}):
        return jobs.script(
            site.options,
            common,
            name=job_name,
            folder=folder,
            files=files,
            walltime=site.walltime(group),
            gpus=site.gpus(group),
        )


def _in_place_of_the_shell(python: str) -> str:
    """What starts Python as the job's own process, which hears of its end.

    A shell that hears of it ends at once, and all that the worker has on its node then stays:
    HTCondor kills what lives longer than that.
    """
    has_variables = re.match(r"\w+=", python) is not None
    return python if has_variables else f"exec {python}"


def _own_host(python: str, scheduler_address: str) -> str:
    """The line of shell that finds the address at which the scheduler reaches a job.

    The name of its machine may be one of loopback, and its default route may lead elsewhere.
    """
    host, _, port = scheduler_address.partition("://")[2].rpartition(":")
    arguments = [shlex.quote(each) for each in (TOWARDS, host.strip("[]"), port)]
    return f"{VARIABLE}=$({python} -c {' '.join(arguments)})"


def _arguments(site: Site, group: str, files: Mapping[str, str]) -> list[str]:
    """The options of dask worker, each quoted for the shell."""
    options, gpus = site.options, site.group(group).gpus
    # One task at a time for each process, whatever cores it has: they are for torch, and two tasks
    # that read wait for each other in Python. The last --nthreads counts.
    words = ["--nthreads", "1", "--preload", PRELOAD, "--no-dashboard"]
    words += ["--dashboard-address", "127.0.0.1:0"]  # some pages are served all the same, to all
    if options.worker_ports is not None:
        words += ["--worker-port", options.worker_ports]
    if options.nanny_ports is not None:
        words += ["--nanny-port", options.nanny_ports]
    lifetime = site.lifetime(group)
    if lifetime is not None:
        words += ["--lifetime", f"{lifetime[0]:.0f}s", "--lifetime-stagger", f"{lifetime[1]:.0f}s"]
    if gpus:
        words += ["--resources", f"GPU={gpus:g}"]
    for key, file in files.items():
        words += [key, file if options.shared_files else PurePath(file).name]
    return [shlex.quote(each) for each in words]


def _certificates(security: Security | None) -> dict[str, str]:
    """Files by the worker's options that take them."""
    if security is None:
        return {}
    files: dict[str, str] = {
        f"--tls-{key.replace('_', '-')}": value
        for key, value in security.get_tls_config_for_role("worker").items()
        if key != "ciphers" and value is not None
    }
    assert not any(
        "\n" in file for file in files.values()
    )  # the text of a key: it must not be seen
    return files


def python_of(site: Site, group: str) -> str:
    """What starts Python in a group's jobs, as a shell has it."""
    options, own_python = site.options, site.jobs(group).python
    container = options.container
    if container is not None and container.directive is None:
        python = own_python or container.python
        image = in_shell(container.image)
        return " ".join([container.command, *container.options, image, python])
    if own_python is not None:
        return own_python
    if container is not None:
        return container.python
    if options.packed_environment is not None:
        return f'"${UNPACKED}/bin/python"'
    return shlex.quote(sys.executable)


def _require_needs(site: Site, jobs: Jobs) -> None:
    """Raise unless what every user of a site has to give is given."""
    import dask

    for key in site.options.needs:
        section = f"jobqueue.{site.system}.{key}"
        if getattr(jobs, key, None) is None and dask.config.get(section, None) is None:
            variable = f"DASK_{section.upper().replace('.', '__')}"
            raise ClusterError(
                f"site {site.name} needs your {key}: set {variable}=…, or {section} in a file of "
                f"your own with mlaas4hep.base: {site.name}",
                site=site.name,
                key=key,
            )
