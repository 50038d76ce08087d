"""Renders the script of the batch job in which a run works that is detached."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from mlaas4hep_dask.cluster.sites.environment import CREDENTIALS, prologue_of, submitting
from mlaas4hep_dask.cluster.sites.model import HEAD
from mlaas4hep_dask.cluster.sites.render import python_of, script_of
from mlaas4hep_dask.cluster.sites.site import Site
from mlaas4hep_dask.cluster.systems.script import Script
from mlaas4hep_dask.errors import ClusterError

# What a run needs that workers do not: the batch system, to which the job submits, with the keys
# that only the user knows, and the catalogue of files.
OF_A_RUN = re.compile(
    "SLURM_CONF|CONDOR_CONFIG|_CONDOR_[A-Z]+_HOST|DASK_CONFIG|DASK_JOBQUEUE__.*"
    "|RUCIO_(CONFIG|HOME|ACCOUNT|AUTH_TYPE|VO)"
)


def head_script(
    site: Site,
    command: Sequence[str],
    *,
    name: str,
    folder: Path,
    logs: Path,
    variables: Mapping[str, str] | None = None,
    credentials: Mapping[str, Path] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Script:
    """The script of a job that runs a command of this package, which submits other jobs.

    Parameters
    ----------
    site : Site
        Where it is submitted; section ``head`` says what it asks for.
    command : sequence of str
        What comes after ``python``.
    name : str
        Name of the job, after the site's prefix.
    folder : Path
        The folder in which it works.
    logs : Path
        Folder of its log.
    variables : mapping of str to str, optional
        More variables of the job.
    credentials : mapping of str to Path, optional
        Copies for the job, by ``proxy`` and ``token``: `Carried.files`.
    environment : mapping of str to str, optional
        Variables of the process that submits; its own by default.

    Raises
    ------
    ClusterError
        When the site's nodes do not see the run directory, or it needs what was not given.
    MissingExtraError
        When dask-jobqueue is not installed.
    """
    if not site.options.shared_files:
        raise ClusterError(
            f"the nodes of site {site.name} do not see the run directory, so that a run cannot "
            "work in a job there: leave --detach out, and run it under tmux or nohup",
            site=site.name,
        )
    here = os.environ if environment is None else environment
    of_a_run = {name: here[name] for name in sorted(here) if OF_A_RUN.fullmatch(name)}
    lines = [
        *(f"export {key}={shlex.quote(value)}" for key, value in of_a_run.items()),
        *prologue_of(site, HEAD, here),
        *(f"export {key}={shlex.quote(value)}" for key, value in (variables or {}).items()),
        *_credential_lines(here, credentials or {}),
        f"cd {shlex.quote(str(folder))} || exit 1",
        f"exec {python_of(site, HEAD)} {shlex.join(command)}",
    ]
    script = script_of(site, HEAD, {}, lines, name=name, logs=logs)
    submit = (*script.submit, *site.jobs(HEAD).head_options)
    return replace(script, submit=submit, environment=submitting(site, here))


def _credential_lines(here: Mapping[str, str], copies: Mapping[str, Path]) -> list[str]:
    """The lines of shell that tell the job where credentials are, which it carries on.

    A file that a variable names, and that the job's node sees, may be renewed; a copy is not.
    """
    lines = []
    for variable, kind in CREDENTIALS.items():
        if kind not in copies:
            continue
        copy = f"export {variable}={shlex.quote(str(copies[kind]))}"
        if variable in here:
            own = shlex.quote(here[variable])
            copy = f"if [ -r {own} ]; then export {variable}={own}; else {copy}; fi"
        lines.append(copy)
    return lines
