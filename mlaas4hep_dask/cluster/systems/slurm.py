"""SLURM: jobs with scripts for sbatch, and their queue."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import Field, model_validator

from mlaas4hep_dask.cluster.batch.views import Seen
from mlaas4hep_dask.cluster.systems.fields import Seconds, clock
from mlaas4hep_dask.cluster.systems.jobs import Jobs, with_our_names
from mlaas4hep_dask.cluster.systems.queue import Queue
from mlaas4hep_dask.cluster.systems.script import Script
from mlaas4hep_dask.cluster.systems.stock import job_class
from mlaas4hep_dask.cluster.systems.system import System
from mlaas4hep_dask.config.fields import Text

if TYPE_CHECKING:
    from mlaas4hep_dask.cluster.sites.options import Options

NAMING = re.compile(r"-J|-a\b|--(job-name|array)\b")  # options of sbatch


class Slurm(Jobs):
    """Section ``jobqueue.slurm``."""

    own_defaults: ClassVar[Mapping[str, Any]] = {"walltime": None}  # no half an hour
    # The same command takes the run up again, not the batch system.
    head_options: ClassVar[tuple[str, ...]] = ("--no-requeue",)
    # Where the commands and their server are, and who asks.
    own_variables: ClassVar[re.Pattern[str] | None] = re.compile(
        "PATH|HOME|USER|LOGNAME|LD_LIBRARY_PATH|KRB5CCNAME|(SLURM|SBATCH|MUNGE)_.*"
    )

    shebang: Text = Field(default="#!/usr/bin/env bash", description="First line of the script.")
    queue: Text | None = Field(default=None, description="Partition (-p).")
    account: Text | None = Field(default=None, description="Account (-A).")
    walltime: Seconds | None = Field(
        default=None,
        description="Time after which the job is ended (-t). null means that of the partition.",
    )
    job_cpu: int | None = Field(
        default=None, ge=1, description="Cores that are asked for. null means cores."
    )
    job_mem: Text | None = Field(
        default=None,
        description="Memory that is asked for, in SLURM's words: 8G is GiB. null means memory and "
        "the headroom.",
    )
    job_extra_directives: list[Text] = Field(
        default=[], description="More options of sbatch, such as --qos=regular."
    )

    @model_validator(mode="after")
    def _keeps_names(self) -> Self:
        options = [each.strip() for each in self.job_extra_directives]
        return with_our_names(self, [each for each in options if NAMING.match(each)])

    @property
    def own_walltime(self) -> float | None:
        """As of `Jobs`."""
        return self.walltime

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
        del files  # nodes see them
        directives = ["--nodes=1"]  # a job over two nodes would start its worker on the first alone
        log = None if folder is None else f"{folder}/{name}-{{job}}.log"
        output = "/dev/null" if log is None else log.replace("%", "%%").replace("{job}", "%j")
        directives.append(f"--output={shlex.quote(output)}")
        if gpus:
            directives.append((options.gpu_directive or "--gres=gpu:{gpus}").format(gpus=gpus))
        job = job_class("slurm", "SLURMJob")(
            **{**common, "job_name": shlex.quote(name)},
            queue=self.queue and shlex.quote(self.queue),
            account=self.account and shlex.quote(self.account),
            walltime=None if walltime is None else clock(walltime),
            job_cpu=self.job_cpu,
            job_mem=self.job_mem or f"{self.batch_memory}M",
            job_extra_directives=[*directives, *map(_directive, self.job_extra_directives)],
        )
        return Script(
            job.job_script() if "worker_command" in common else _text(job, common),
            name,
            tuple(shlex.split(job.submit_command)),
            log,
        )


class SlurmQueue(Queue):
    """Jobs of SLURM."""

    COMMANDS: ClassVar[Sequence[str]] = ("sbatch", "squeue", "scancel")

    _ROW: ClassVar[re.Pattern[str]] = re.compile(r"(\d+)\|([A-Z_]+)\|(.*)\|([^|]*)")

    # A job that has ended is known for some minutes (MinJobAge), so that its end has a reason.
    _ENDED: ClassVar[Mapping[str, str]] = {
        "BOOT_FAIL": "its node did not start",
        "CANCELLED": "cancelled",
        "COMPLETED": "ended by itself",
        "DEADLINE": "reached its deadline",
        "FAILED": "failed",
        "NODE_FAIL": "its node failed",
        "OUT_OF_MEMORY": "killed for memory",
        "PREEMPTED": "preempted",
        "REVOKED": "revoked",
        "TIMEOUT": "reached its walltime",
    }
    # While processes of a job end, its state tells that alone; the reason has SLURM's own words.
    _ENDING: ClassVar[Mapping[str, str]] = {"TimeLimit": "reached its walltime"}
    _HELD: ClassVar[Mapping[str, str]] = {
        "LAUNCH_FAILED": "its launch failed",
        "RECONFIG_FAIL": "its node could not be set up",
        "REQUEUE_HOLD": "put back into the queue, and held",
        "RESV_DEL_HOLD": "its reservation was deleted",
        "SPECIAL_EXIT": "put back into the queue for its exit status, and held",
    }
    _WAITING: ClassVar[Sequence[str]] = (
        "PENDING",
        "CONFIGURING",
        "POWER_UP_NODE",
        "REQUEUED",
        "REQUEUE_FED",
    )
    _SUSPENDED: ClassVar[Sequence[str]] = ("SUSPENDED", "STOPPED")

    def submit(self, script: Script, path: Path) -> str:  # noqa: D102  # of Queue
        return self.submit_by_command(script, path, re.compile(r"batch job (\d+)"))

    def seen(self) -> dict[str, Seen] | None:  # noqa: D102  # of Queue
        # %A is the number that a job has in its own environment; %i is as 12_3 in an array.
        form = ("--me", "--noheader", "--states=all", "--format=%A|%T|%r|%j")
        text = self.output_of("squeue", *self.options, *form)
        if text is None:
            return None
        jobs = dict[str, Seen]()
        for line in filter(str.strip, text.splitlines()):
            if (row := self._ROW.fullmatch(line)) is None:
                if jobs:  # the rest of a name with line breaks, of some job of another program
                    continue
                self.unreadable("squeue", text)
                return None
            job, state, reason, name = row.groups()
            jobs[job] = replace(self._seen(state, reason), name=name)
        return jobs

    def _seen(self, state: str, reason: str) -> Seen:
        why = "" if reason in ("None", "") else reason
        if state in self._ENDED:
            return Seen("gone", _words(self._ENDED[state], why), state == "TIMEOUT")
        if state == "COMPLETING":
            return Seen("running", _words(self._ENDING.get(why, ""), why), is_ending=True)
        if state in self._HELD or "held" in why.lower():
            return Seen("held", _words(self._HELD.get(state, ""), why))
        if state in self._SUSPENDED:
            return Seen("suspended", why)
        return Seen("pending" if state in self._WAITING else "running", why)

    @staticmethod
    def own_job() -> str:
        """As of `Queue`.

        A shell of ``salloc`` on the machine that submits has the number of a job too, also when
        that has ended: it works in none. Only what a node's daemon starts has the node's name.
        """
        return os.environ.get("SLURM_JOB_ID", "") if os.environ.get("SLURMD_NODENAME") else ""

    @staticmethod
    def was_started_again() -> bool:  # noqa: D102  # of Queue
        return os.environ.get("SLURM_RESTART_COUNT", "0") != "0"

    def cancel_command(self, ids: Sequence[str]) -> tuple[str, ...]:  # noqa: D102  # of Queue
        return ("scancel", *self.options, *ids)

    def explain(self, job: str) -> str:  # noqa: D102  # of Queue
        text = self.output_of("scontrol", *self.options, "show", "job", job) or ""
        beginnings = ("JobState=", "Reason=", "Partition=", "ReqTRES=", "TRES=", "NumNodes=")
        return " ".join(word for word in text.split() if word.startswith(beginnings))


def _words(*parts: str) -> str:
    return ", ".join(filter(None, parts))


def _directive(option: str) -> str:
    """An option of sbatch; a value with blanks that has no quotes gets them."""
    name, _, value = option.partition("=")
    if name.startswith("--") and not re.search(r"[\s'\"]", name) and re.search(r"\s", value):
        return option if re.search(r"['\"\\]", value) else f"{name}={shlex.quote(value)}"
    return option


def _text(job: Any, common: Mapping[str, Any]) -> str:
    """The script of a job without a worker."""
    return "\n".join([job.shebang, "", job.job_header, *common["job_script_prologue"], ""])


SYSTEM = System(Slurm, SlurmQueue)
