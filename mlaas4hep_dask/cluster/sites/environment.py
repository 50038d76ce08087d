"""The lines of shell that give a batch job its environment; HTCondor's have not even a PATH."""

from __future__ import annotations

import fnmatch
import re
import shlex
from collections.abc import Mapping
from pathlib import Path, PurePath

from mlaas4hep_dask.catalog.locations import XROOTD_LIMITS
from mlaas4hep_dask.cluster.settings import variables
from mlaas4hep_dask.cluster.sites.site import Site

# Without them a server that dies in mid-read stops a worker for minutes. Only connections are
# given up early: reading.timeout says how long a server may take to answer.
XROOTD = {**XROOTD_LIMITS, "XRD_REQUESTTIMEOUT": "60", "XRD_STREAMTIMEOUT": "30"}
CREDENTIALS = {"X509_USER_PROXY": "proxy", "BEARER_TOKEN_FILE": "token"}  # and the site's keys
SECRETS = ("BEARER_TOKEN",)  # a script can be read by everybody; never its value
UNPACKED = "MLAAS4HEP_UNPACKED"  # variable: the folder of a packed environment
SCRATCH = "${_CONDOR_SCRATCH_DIR:-${SLURM_TMPDIR:-${TMPDIR:-/tmp}}}"


def environment_of(site: Site, group: str, here: Mapping[str, str]) -> dict[str, str]:
    """The variables of a group's jobs.

    Parameters
    ----------
    site : Site
        Where they run.
    group : str
        ``readers`` or ``trainers``.
    here : mapping of str to str
        The variables of the process that submits.
    """
    options, jobs = site.options, site.jobs(group)
    threads = str(max(jobs.cores // jobs.processes, 1))
    values = {
        "OMP_NUM_THREADS": threads,
        "OPENBLAS_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "PYTHONUNBUFFERED": "1",  # else the log lacks what was said last
        **XROOTD,
        **_passed(site, here),
        **{
            name: value
            for name, value in variables(site.nested_settings).items()
            if not name.startswith("DASK_DISTRIBUTED__SCHEDULER__")
        },
        **options.environment,
    }
    return {name: value for name, value in sorted(values.items()) if name not in SECRETS}


def prologue_of(
    site: Site, group: str, here: Mapping[str, str], copies: Mapping[str, Path] | None = None
) -> list[str]:
    """The lines of shell before a group's worker starts.

    Parameters
    ----------
    site, group, here
        As of `environment_of`.
    copies : mapping of str to Path, optional
        By ``proxy`` and ``token``, the copies that `carried_files` has left.
    """
    values = environment_of(site, group, here)
    lines = [f"export {name}={shlex.quote(value)}" for name, value in values.items()]
    lines += ["unset MALLOC_TRIM_THRESHOLD_", *_credential_lines(site, copies or {})]
    # A worker whose rank computes when its scheduler is lost aborts, with all its memory in a file.
    lines.append("ulimit -S -c 0")
    options = site.options
    if options.packed_environment is not None:
        archive = options.packed_environment
        if not options.shared_files:
            archive = f"{SCRATCH}/{PurePath(archive).name}"
        folder = f"${UNPACKED}"
        lines += [
            f'mkdir -p "{SCRATCH}"',
            # Jobs of one node may share their scratch folder, with each other and with other users.
            f'export {UNPACKED}="$(mktemp -d "{SCRATCH}/environment-XXXXXX")"',
            f'tar -xf {in_shell(archive)} -C "{folder}"',
            f'export PATH="{folder}/bin:$PATH"',
            # conda's environments have paths in them, which this sets right
            f'if [ -x "{folder}/bin/conda-unpack" ]; then "{folder}/bin/conda-unpack"; fi',
        ]
    own = site.jobs(group).job_script_prologue
    return [*lines, *(["\n".join(own)] if own else [])]  # a comment or an if may span its lines


def _credential_lines(site: Site, copies: Mapping[str, Path]) -> list[str]:
    """The lines of shell that tell a job where copies of credentials are."""
    lines = []
    for variable, kind in CREDENTIALS.items():
        if kind in copies and variable not in site.options.environment:
            place = shlex.quote(str(copies[kind]))
            if not site.options.shared_files:
                place = f'"$PWD/{copies[kind].name}"'
                lines.append(f"chmod 600 {place}")
            lines.append(f"export {variable}={place}")
    return lines


def carried_files(site: Site, group: str, copies: Mapping[str, Path]) -> dict[str, Path]:
    """The copies of credentials that jobs are given; HTCondor may carry the proxy by itself."""
    by_itself = site.jobs(group).carries_proxy
    return {kind: file for kind, file in copies.items() if kind != "proxy" or not by_itself}


def submitting(site: Site, here: Mapping[str, str]) -> dict[str, str] | None:
    """The variables of the command that submits, which jobs of SLURM get; None means all.

    Parameters
    ----------
    site : Site
        Whose key ``pass-environment`` says what is passed on.
    here : mapping of str to str
        The variables of the process that submits.
    """
    needed = site.document.jobs.own_variables
    if needed is None:
        return None
    passed = {*_passed(site, here), *(name for name in here if needed.fullmatch(name))}
    return {name: here[name] for name in sorted(passed.difference(SECRETS))}


def in_shell(path: str) -> str:
    """A path as one word of a shell; variables in it are expanded."""
    return '"' + re.sub(r'(["`\\])', r"\\\1", path) + '"'


def _passed(site: Site, here: Mapping[str, str]) -> dict[str, str]:
    values = {
        name: value
        for name, value in here.items()
        if any(fnmatch.fnmatchcase(name, each) for each in site.options.pass_environment)
    }
    for name, key in CREDENTIALS.items():
        if getattr(site.options, key) == "none":
            values.pop(name, None)
    return values
