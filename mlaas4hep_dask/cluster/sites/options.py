"""Section ``mlaas4hep`` of a site's file: what dask-jobqueue has no key for."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, JsonValue, model_validator

from mlaas4hep_dask.cluster.systems.fields import Part, Ports, Seconds
from mlaas4hep_dask.config.fields import Text
from mlaas4hep_dask.config.problems import Problem, invalid

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
    """A group of workers."""

    gpus: int = Field(
        default=0,
        ge=0,
        description="GPUs of each job. Ranks use those of trainers, see training.device; readers "
        "use none, unless your own function does.",
    )


class Trainers(Group):
    """The workers that train."""

    @model_validator(mode="before")
    @classmethod
    def _are_as_many_as_ranks(cls, values: Any) -> Any:
        if isinstance(values, dict):
            text = "there are as many trainers as training.ranks of dataset.yaml; leave it out"
            numbers = [key for key in ("minimum", "maximum") if key in values]
            if numbers:
                raise invalid(*(Problem(key, text) for key in numbers))
        return values


class Readers(Group):
    """The workers that read."""

    minimum: int = Field(default=1, ge=1, description="Workers with which work begins.")
    maximum: int = Field(default=10, ge=1, description="Most workers at a time.")

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
        description="Lifetimes of readers differ by up to this, so that they do not end "
        "together. null means 0.05 of the walltime.",
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
    shared_scratch: Text | None = Field(
        default=None,
        description="Folder for much data that all nodes and the machine that submits see, for "
        "copies of encoded blocks while a run trains; ~ and $VARIABLES are expanded. null means "
        "the run directory.",
    )
    transfer: list[Text] = Field(
        default=[], description="Of HTCondor, more files that are transferred with a job."
    )
    packed_environment: Text | None = Field(
        default=None,
        description="A tar file of conda-pack or venv-pack, unpacked in a new folder in the job's "
        "scratch folder.",
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
    readers: Readers = Field(
        default=Readers(), description="Workers that read, measure and encode."
    )
    trainers: Trainers = Field(
        default=Trainers(),
        description="Workers that train, a rank each: as many as training.ranks.",
    )
    head: Head = Field(
        default=Head(),
        description="The job of a run with --detach, in which the command and the scheduler work: "
        "a group with walltime and jobqueue alone.",
    )
