"""A site's file as frozen models: what a batch system needs to hear, and what its jobs find."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Any, Literal, Self, TypeVar

from pydantic import ConfigDict, Field, JsonValue, ValidationError, model_validator

from mlaas4hep_dask.cluster.settings import merged
from mlaas4hep_dask.cluster.sites.fields import Ports, Scalars, Seconds
from mlaas4hep_dask.config.fields import Size, Text
from mlaas4hep_dask.config.problems import Problem, invalid, problems_of
from mlaas4hep_dask.config.section import Section
from mlaas4hep_dask.places import GROUPS

MIB, GIB = 2**20, 2**30
HEADROOM, OVERHEAD = 1.2, 300 * 10**6  # of the batch system's limit over the workers': see Jobs
HEAD = "head"
KINDS = (*GROUPS, HEAD)  # of jobs
PASSED = [
    "HOME",
    "USER",
    "LOGNAME",
    "LANG",
    "PATH",
    "PYTHONPATH",
    "LD_LIBRARY_PATH",
    "X509_USER_PROXY",
    "X509_CERT_DIR",
    "BEARER_TOKEN_FILE",
    "SSL_CERT_FILE",
    "KRB5CCNAME",
    "MLAAS4HEP_*",
    "XRD_*",
]
NAMING = re.compile(r"-J|-a\b|--(job-name|array)\b")  # options of sbatch
BATCH_NAME = re.compile(r"batch_name|(\+|MY\.)?JobBatchName", re.IGNORECASE)  # of a submit file
RENAMED = {  # in dask-jobqueue itself
    "extra": "worker-extra-args",
    "env-extra": "job-script-prologue",
    "job-extra": "job-extra-directives",
    "header-skip": "job-directives-skip",
    "project": "account",
}


class Part(Section):
    """What all parts of a site's file share: keys are written with hyphens, as Dask's."""

    model_config = ConfigDict(
        alias_generator=lambda name: name.replace("_", "-"), populate_by_name=True
    )


class Jobs(Part):
    """The section of a batch system in ``jobqueue``, with the keys of dask-jobqueue."""

    name: Text = Field(default="mlaas4hep", description="What the names of jobs begin with.")
    cores: int = Field(
        default=1, ge=1, description="Cores of a job; each process gets its share as threads."
    )
    memory: Size = Field(
        default=4 * GIB,
        description="Memory that the workers of a job may use, '4 GiB'. The batch system is asked "
        "for a fifth more, and 300 MB for each process, so that Dask acts before it kills.",
    )
    processes: int = Field(
        default=1,
        ge=1,
        description="Worker processes of a job. A lost job loses all of them; minimum and maximum "
        "count workers, not jobs.",
    )
    python: Text | None = Field(
        default=None,
        description="The Python of the workers. null means that which submits, or that of the "
        "container or of the packed environment.",
    )
    interface: Text | None = Field(
        default=None, description="Network interface of scheduler and workers, such as ib0."
    )
    death_timeout: Seconds = Field(
        default=300.0,
        description="Time after which workers without a scheduler end, and their job with them.",
    )
    local_directory: Text | None = Field(
        default=None,
        description="Scratch folder on the node, as a shell writes it. null means TMPDIR.",
    )
    shared_temp_directory: Text | None = Field(
        default=None,
        description="Folder that all nodes see, for certificates. null means the run directory.",
    )
    worker_command: Text = Field(
        default="distributed.cli.dask_worker", description="Python module that starts workers."
    )
    worker_extra_args: list[str] = Field(default=[], description="More options of dask worker.")
    job_script_prologue: list[str] = Field(
        default=[], description="Lines of shell before the worker starts, after the environment."
    )
    job_directives_skip: list[str] = Field(
        default=[], description="Directives that are left out of the script."
    )
    log_directory: Text | None = Field(
        default=None,
        description="Folder of the logs of jobs, where the batch system cannot write into the run "
        "directory; ~ and $VARIABLES are expanded. null means logs in the run directory.",
    )
    scheduler_options: dict[str, JsonValue] = Field(
        default={}, description="Options of Dask's scheduler, such as host and interface."
    )

    @property
    def batch_memory(self) -> int:
        """The memory that a batch system is asked for, in MiB."""
        return math.ceil((HEADROOM * self.memory + OVERHEAD * self.processes) / MIB)

    @model_validator(mode="before")
    @classmethod
    def _is_in_todays_words(cls, document: Any) -> Any:
        if not isinstance(document, dict):
            return document
        problems = [
            Problem(old, f"is called {new!r} now")
            for old, new in RENAMED.items()
            if document.get(old)
        ]
        if problems:
            raise invalid(*problems)
        # dask-jobqueue's own file, from which many are copied, has them, and null for defaults.
        return {
            key: value
            for key, value in document.items()
            if value is not None and (key not in RENAMED or value)
        }


JobsOfOne = TypeVar("JobsOfOne", bound=Jobs)


def _with_our_names(jobs: JobsOfOne, given: list[str]) -> JobsOfOne:
    """The section; an error when it gives jobs other names, or makes several of one."""
    if given:
        text = f"{given[0]!r} is not for these jobs: they are told apart by their names, each alone"
        raise invalid(Problem("job-extra-directives", f"{text}; name says what those begin with"))
    return jobs


class Slurm(Jobs):
    """Section ``jobqueue.slurm``."""

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
        return _with_our_names(self, [each for each in options if NAMING.match(each)])


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
        return _with_our_names(self, keys)


class Head(Part):
    """The job of a run with --detach, in which the command and Dask's scheduler work."""

    walltime: Seconds | None = Field(
        default=None, description="Walltime of this group's jobs. null means that of all."
    )
    jobqueue: dict[str, JsonValue] = Field(
        default={},
        description="Keys of the batch system's section that differ for this group. A list "
        "replaces the list.",
    )


class Group(Head):
    """A group of workers: readers, or trainers."""

    minimum: int = Field(default=1, ge=1, description="Workers with which work begins.")
    maximum: int = Field(default=10, ge=1, description="Most workers at a time.")
    gpus: int = Field(default=0, ge=0, description="GPUs of each job.")

    @model_validator(mode="after")
    def _has_room(self) -> Self:
        if self.maximum < self.minimum:
            text = f"expected at least minimum ({self.minimum}), found {self.maximum}"
            raise invalid(Problem("maximum", text))
        return self


class Container(Part):
    """The container in which workers run."""

    image: Text = Field(description="A path or URL that the site's container runtime takes.")
    command: Text = Field(
        default="apptainer exec", description="What starts a program in an image."
    )
    options: list[Text] = Field(
        default=[], description="Options of that command, such as --bind /cvmfs or --nv."
    )
    directive: Text | None = Field(
        default=None,
        description="Of HTCondor, the line of the submit file that names the image, such as "
        "MY.SingularityImage: the batch system starts the container then, not the command.",
    )
    python: Text = Field(default="python3", description="The Python in the image.")


class Options(Part):
    """Section ``mlaas4hep``: what dask-jobqueue has no key for."""

    title: Text = Field(description="What the site is, in one sentence.")
    documentation: list[Text] = Field(
        default=[], description="Pages of the site from which the values are taken."
    )
    base: Text | None = Field(
        default=None, description="Name or path of a site whose values hold unless given here."
    )
    needs: list[Literal["account", "queue"]] = Field(
        default=[], description="Keys of the batch system that every user has to give."
    )
    walltime: Seconds | None = Field(
        default=None, description="Time after which the batch system ends a job."
    )
    walltime_directive: Text | None = Field(
        default=None,
        description="Of HTCondor, the line of the submit file that takes the walltime in seconds, "
        "such as +MaxRuntime.",
    )
    lifetime: Seconds | None = Field(
        default=None,
        description="Time after which a worker hands over what it holds and ends. null means 0.9 "
        "of the walltime.",
    )
    lifetime_stagger: Seconds | None = Field(
        default=None,
        description="Lifetimes differ by up to this, so that workers do not end together. null "
        "means 0.05 of the walltime.",
    )
    worker_ports: Ports | None = Field(
        default=None, description="Ports at which workers listen. null means any."
    )
    nanny_ports: Ports | None = Field(
        default=None, description="Ports at which their nannies listen. null means any."
    )
    scheduler_ports: Ports | None = Field(
        default=None, description="Ports at which the scheduler may listen. null means any."
    )
    tls: bool = Field(
        default=True, description="Whether scheduler, workers and client talk over TLS."
    )
    shared_files: bool = Field(
        default=True,
        description="Whether the nodes see the files of the machine that submits. If not, what "
        "jobs need is transferred with them.",
    )
    transfer: list[Text] = Field(
        default=[], description="Of HTCondor, more files that are transferred with a job."
    )
    packed_environment: Text | None = Field(
        default=None,
        description="A tar file of conda-pack or venv-pack, unpacked in the job's scratch folder.",
    )
    environment: dict[str, str] = Field(
        default={}, description="Variables of the workers' environment."
    )
    pass_environment: list[Text] = Field(
        default=PASSED,
        description="Variables that are passed on from where jobs are submitted; * matches.",
    )
    container: Container | None = Field(
        default=None, description="The container in which workers run; null means none."
    )
    proxy: Literal["auto", "required", "none"] = Field(
        default="auto",
        description="X.509 proxy: carried to jobs when there is one (auto), required, or neither.",
    )
    token: Literal["auto", "required", "none"] = Field(
        default="auto", description="WLCG token: as proxy."
    )
    gpu_directive: Text | None = Field(
        default=None,
        description="Of SLURM, the option that asks for GPUs, in which {gpus} is their number. "
        "null means --gres=gpu:{gpus}.",
    )
    patience: Seconds = Field(
        default=4 * 3600.0,
        description="Time in which the minimum of workers has to come, and any worker later. "
        "While others work it does not pass.",
    )
    poll_interval: Seconds = Field(
        default=2.0,
        description="Time between two looks at the batch system's queue. When a worker has left it "
        "is asked at once.",
    )
    max_resubmissions: int = Field(
        default=20, ge=0, description="Jobs lost without work done before the run gives up."
    )
    readers: Group = Field(default=Group(), description="Workers that read, measure and encode.")
    trainers: Group = Field(
        default=Group(maximum=2), description="Workers that train, a rank each."
    )
    head: Head = Field(
        default=Head(),
        description="The job of a run with --detach, in which the command and the scheduler work: "
        "a group with walltime and jobqueue alone.",
    )


class Queue(Part):
    """Section ``jobqueue``: one batch system."""

    slurm: Slurm | None = Field(default=None, description="Jobs of SLURM.")
    htcondor: HTCondor | None = Field(default=None, description="Jobs of HTCondor.")

    @model_validator(mode="after")
    def _is_of_one_system(self) -> Self:
        if (self.slurm is None) == (self.htcondor is None):
            number = "both" if self.slurm is not None else "neither"
            text = f"expected the section of one batch system, slurm or htcondor, found {number}"
            raise invalid(Problem("", text))
        return self


class Document(Part):
    """A site's file."""

    mlaas4hep: Options = Field(description="What dask-jobqueue has no key for.")
    jobqueue: Queue = Field(description="What jobs ask for, in dask-jobqueue's format.")
    distributed: dict[str, JsonValue] = Field(
        default={}, description="Settings of Dask, for the scheduler and the workers."
    )

    @model_validator(mode="after")
    def _has_groups_that_fit(self) -> Self:
        problems = []
        for name in KINDS:
            try:
                self.jobs_of(name)
            except ValidationError as error:
                problems += [
                    replace(problem, key=f"mlaas4hep.{name}.jobqueue.{problem.key}".rstrip("."))
                    for problem in problems_of(error, type(self.jobs), habits=False)
                ]
        if problems:
            raise invalid(*problems)
        return self

    @property
    def jobs(self) -> Slurm | HTCondor:
        """The section of the batch system."""
        section = self.jobqueue.slurm or self.jobqueue.htcondor
        assert section is not None  # Queue has looked
        return section

    def jobs_of(self, group: str) -> Slurm | HTCondor:
        """The section of the batch system, with what differs for a group or the head."""
        values = self.jobs.model_dump(by_alias=True, exclude_unset=True)
        differs: Head = getattr(self.mlaas4hep, group)
        return type(self.jobs).model_validate(merged(values, differs.jobqueue))
