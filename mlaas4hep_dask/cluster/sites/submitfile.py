"""Renders the submit file of a job of HTCondor."""

from __future__ import annotations

import importlib
import shlex
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from mlaas4hep_dask.cluster.sites.model import HTCondor
from mlaas4hep_dask.cluster.sites.script import Script
from mlaas4hep_dask.cluster.sites.site import Site
from mlaas4hep_dask.cluster.sites.stock import job_class
from mlaas4hep_dask.errors import ClusterError


def htcondor_script(
    site: Site,
    group: str,
    jobs: HTCondor,
    common: dict[str, Any],
    name: str,
    folder: str | None,
    certificates: list[str],
) -> Script:
    """The script of a job, whose common values of dask-jobqueue are given."""
    options, gpus, walltime = site.options, site.gpus(group), site.walltime(group)
    directives: dict[str, Any] = {
        "batch_name": name,
        "RequestMemory": jobs.batch_memory,  # MiB
    }
    log = None
    if folder is not None:
        log = f"{folder}/{name}-{{job}}.log"
        place = _escaped(folder)
        stem = f"{place}/{name}-$(ClusterId).$(ProcId)"
        directives |= {
            "Output": f"{stem}.log",
            "Error": f"{stem}.log",
            "Log": f"{place}/{name}-$(ClusterId).condor",
            "Stream_Output": True,  # jobs are ended, and what they said last is wanted
            "Stream_Error": True,
        }
    if gpus:
        directives["request_gpus"] = gpus
    if walltime is not None and options.walltime_directive is not None:
        directives[options.walltime_directive] = int(walltime)
    if options.container is not None and options.container.directive is not None:
        key, image = options.container.directive, options.container.image
        is_of_the_ad = key.startswith("+") or key.lower().startswith("my.")
        text = image.replace("\\", "\\\\").replace('"', '\\"')
        directives[key] = f'"{text}"' if is_of_the_ad else image
    if not options.shared_files:
        shipped = [*certificates, *options.transfer]
        if options.packed_environment is not None:
            shipped.append(options.packed_environment)
        directives |= {
            "should_transfer_files": "YES",
            "when_to_transfer_output": "ON_EXIT",
            "transfer_executable": False,  # it is /bin/sh
            "transfer_output_files": '""',
        }
        if shipped:
            directives["transfer_input_files"] = _list_of(shipped)
        if certificates:
            directives["encrypt_input_files"] = _list_of([PurePath(f).name for f in certificates])
    common["job_script_prologue"] = [_one_line(line) for line in common["job_script_prologue"]]
    common["worker_extra_args"] = [_escaped(each) for each in common.get("worker_extra_args", [])]
    for key in {"local_directory", "python"}.intersection(common):
        common[key] = common[key] and _escaped(common[key])
    site_keys = {key.lower() for key in jobs.job_extra_directives}
    others = {key: value for key, value in directives.items() if key.lower() not in site_keys}
    job = job_class("htcondor", "HTCondorJob")(
        **common,
        disk=str(jobs.disk),
        submit_command_extra=jobs.submit_command_extra,
        job_extra_directives={**others, **jobs.job_extra_directives},
    )
    return Script(
        job.job_script() if "worker_command" in common else _text(job, common),
        name,
        tuple(shlex.split(job.submit_command)),
        log,
    )


def _text(job: Any, common: Mapping[str, Any]) -> str:
    """The submit file of a job without a worker."""
    quoted = importlib.import_module("dask_jobqueue.htcondor").quote_arguments
    lines = [f"{key} = {value}" for key, value in job.job_header_dict.items()]
    arguments = quoted(["-c", "; ".join(common["job_script_prologue"])])
    ending = [f'Arguments = "{arguments}"', f"Executable = {job.executable}", "", "Queue", ""]
    return "\n".join([job.shebang, "", *lines, "", *ending])


def _escaped(text: str) -> str:
    """Text in which HTCondor finds no macro of its own."""
    return text.replace("$(", "$(DOLLAR)(")


def _one_line(lines: str) -> str:
    """Lines of shell as one, for HTCondor, after which others may stand."""
    if "\n" in lines or "#" in lines:
        text = lines.replace("\\", "\\\\").replace("%", "%%").replace("\n", "\\n")
        lines = f'eval "$(printf -- {shlex.quote(text)})"'
    return _escaped(lines)


def _list_of(files: Sequence[str]) -> str:
    """Files as HTCondor lists them.

    Raises
    ------
    ClusterError
        When a name has a comma, for which it has no quotes.
    """
    for file in files:
        if "," in file:
            raise ClusterError(f"HTCondor transfers no file with a comma in its path: {file}")
    return ", ".join(map(_escaped, files))
