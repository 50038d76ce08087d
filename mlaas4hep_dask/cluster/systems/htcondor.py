"""HTCondor: jobs with submit files, and their queue."""

from __future__ import annotations

import importlib
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import Field, model_validator

from mlaas4hep_dask.cluster.batch.views import Seen
from mlaas4hep_dask.cluster.systems.fields import Scalars
from mlaas4hep_dask.cluster.systems.jobs import GIB, Jobs, with_our_names
from mlaas4hep_dask.cluster.systems.queue import Queue
from mlaas4hep_dask.cluster.systems.script import Script
from mlaas4hep_dask.cluster.systems.stock import job_class
from mlaas4hep_dask.cluster.systems.system import System
from mlaas4hep_dask.config.fields import Size, Text
from mlaas4hep_dask.errors import ClusterError

if TYPE_CHECKING:
    from mlaas4hep_dask.cluster.sites.options import Options

ANALYSIS_LINES = 25
HISTORY = 10_000  # jobs that ended last, among which one is looked for
BATCH_NAME = re.compile(r"batch_name|(\+|MY\.)?JobBatchName", re.IGNORECASE)  # of a submit file


class HTCondor(Jobs):
    """Section ``jobqueue.htcondor``."""

    shebang: Text = Field(default="#!/usr/bin/env condor_submit", description="First line.")
    disk: Size = Field(default=10 * GIB, description="Scratch space that is asked for.")
    job_extra_directives: Scalars = Field(
        default={},
        description="More lines of the submit file, such as +JobFlavour. Text of a ClassAd has "
        "quotes of its own.",
    )
    submit_command_extra: list[Text] = Field(
        default=[], description="More options of condor_submit, such as -spool."
    )
    cancel_command_extra: list[Text] = Field(
        default=[],
        description="More options of condor_rm and condor_q: -name, where the queue is elsewhere.",
    )

    @model_validator(mode="after")
    def _keeps_names(self) -> Self:
        keys = [key for key in self.job_extra_directives if BATCH_NAME.fullmatch(key)]
        return with_our_names(self, keys)

    @property
    def queue_options(self) -> tuple[str, ...]:
        """As of `Jobs`."""
        return tuple(self.cancel_command_extra)

    @property
    def carries_proxy(self) -> bool:
        """As of `Jobs`."""
        directives = self.job_extra_directives.items()
        return any(key.lower() == "use_x509userproxy" and value for key, value in directives)

    def script(
        self,
        options: Options,
        common: dict[str, Any],
        *,
        name: str,
        folder: str | None,
        files: Sequence[str],
        walltime: float | None,
        gpus: int,
    ) -> Script:
        """As of `Jobs`."""
        directives: dict[str, Any] = {
            "batch_name": name,
            "RequestMemory": self.batch_memory,  # MiB
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
            shipped = [*files, *options.transfer]
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
            if files:
                directives["encrypt_input_files"] = _list_of([PurePath(f).name for f in files])
        common["job_script_prologue"] = [_one_line(line) for line in common["job_script_prologue"]]
        common["worker_extra_args"] = list(map(_escaped, common.get("worker_extra_args", [])))
        for key in {"local_directory", "python"}.intersection(common):
            common[key] = common[key] and _escaped(common[key])
        site_keys = {key.lower() for key in self.job_extra_directives}
        others = {key: value for key, value in directives.items() if key.lower() not in site_keys}
        job = job_class("htcondor", "HTCondorJob")(
            **common,
            disk=str(self.disk),
            submit_command_extra=self.submit_command_extra,
            job_extra_directives={**others, **self.job_extra_directives},
        )
        return Script(
            job.job_script() if "worker_command" in common else _text(job, common),
            name,
            tuple(shlex.split(job.submit_command)),
            log,
        )


class HTCondorQueue(Queue):
    """Jobs of HTCondor; their ids are as ``7.0``."""

    COMMANDS: ClassVar[Sequence[str]] = ("condor_submit", "condor_q", "condor_rm")

    _ATTRIBUTES: ClassVar[str] = (
        "ClusterId,ProcId,JobStatus,HoldReason,HoldReasonCode,LastRejMatchReason,JobBatchName,"
        "RemoveReason"
    )
    _END: ClassVar[Sequence[str]] = ("RemoveReason", "ExitSignal", "ExitCode")
    _IDLE: ClassVar[int] = 1
    _REMOVED: ClassVar[int] = 3
    _COMPLETED: ClassVar[int] = 4
    _HELD: ClassVar[int] = 5
    _SUSPENDED: ClassVar[int] = 7
    _SPOOLING: ClassVar[int] = 16  # the hold of a job whose files are on their way

    def submit(self, script: Script, path: Path) -> str:  # noqa: D102  # of Queue
        return self.submit_by_command(script, path, re.compile(r"cluster (\d+)")) + ".0"

    def seen(self) -> dict[str, Seen] | None:  # noqa: D102  # of Queue
        text = self.output_of("condor_q", *self.options, "-json", "-attributes", self._ATTRIBUTES)
        if text is None:
            return None
        try:
            jobs = json.loads(text) if text.strip() else []
            return {f"{job['ClusterId']}.{job['ProcId']}": self._seen(job) for job in jobs}
        except (ValueError, TypeError, KeyError):  # a warning in between, or half of it
            self.unreadable("condor_q", text)
            return None

    def _seen(self, job: Mapping[str, str | int]) -> Seen:
        return replace(self._state_of(job), name=str(job.get("JobBatchName", "")))

    def _state_of(self, job: Mapping[str, str | int]) -> Seen:
        status = job["JobStatus"]
        if status == self._HELD and job.get("HoldReasonCode") != self._SPOOLING:
            return Seen("held", str(job.get("HoldReason", "")))
        if status in (self._REMOVED, self._COMPLETED):
            why = str(job.get("RemoveReason", "")).strip()
            removed = f"removed, {why}" if why else "removed"
            return Seen("gone", removed if status == self._REMOVED else "ended by itself")
        if status in (self._IDLE, self._HELD):
            return Seen("pending", str(job.get("LastRejMatchReason", "")).strip())
        return Seen("suspended" if status == self._SUSPENDED else "running")

    def cancel_command(self, ids: Sequence[str]) -> tuple[str, ...]:  # noqa: D102  # of Queue
        return ("condor_rm", *self.options, *ids)

    def explain(self, job: str) -> str:  # noqa: D102  # of Queue
        text = self.output_of("condor_q", *self.options, "-better-analyze", job) or ""
        lines = text.splitlines()
        return "\n".join([line for line in lines if line.strip()][-ANALYSIS_LINES:])

    def end_of(self, job: str) -> str:  # noqa: D102  # of Queue
        asked = ("-limit", "1", "-scanlimit", str(HISTORY), "-json", "-attributes")
        names = ",".join(self._END)
        text = self.output_of("condor_history", *self.options, job, *asked, names) or ""
        try:
            (ad,) = json.loads(text)
        except (ValueError, TypeError):  # nobody knows of it
            return ""
        return ", ".join(f"{name}: {ad[name]}" for name in self._END if name in ad)


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


SYSTEM = System(HTCondor, HTCondorQueue)
