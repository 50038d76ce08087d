"""What jobs of every batch system ask for, in the words of a site's file."""

from __future__ import annotations

import math
import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

from pydantic import Field, JsonValue, model_validator

from mlaas4hep_dask.cluster.systems.fields import Part, Seconds
from mlaas4hep_dask.cluster.systems.script import Script
from mlaas4hep_dask.config.fields import Size, Text, want_of_room
from mlaas4hep_dask.config.problems import Problem, invalid

if TYPE_CHECKING:
    from mlaas4hep_dask.cluster.sites.options import Options

MIB, GIB = 2**20, 2**30
HEADROOM, OVERHEAD = 1.2, 300 * 10**6  # of the batch system's limit over the workers': see Jobs
RENAMED = {  # in dask-jobqueue itself
    "extra": "worker-extra-args",
    "env-extra": "job-script-prologue",
    "job-extra": "job-extra-directives",
    "header-skip": "job-directives-skip",
    "project": "account",
}


class Jobs(Part):
    """The section of a batch system in ``jobqueue``, with the keys of dask-jobqueue."""

    own_defaults: ClassVar[Mapping[str, Any]] = {}  # over those of dask-jobqueue
    head_options: ClassVar[tuple[str, ...]] = ()  # of the command that submits a run with --detach
    # Of what the commands of the batch system need themselves, where jobs get the variables of the
    # command that submits them; None where they get none.
    own_variables: ClassVar[re.Pattern[str] | None] = None

    shebang: Text = Field(description="First line of the script.")
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

    @property
    def queue_options(self) -> tuple[str, ...]:
        """More options of the batch system's commands that see and end jobs."""
        return ()

    @property
    def own_walltime(self) -> float | None:
        """Seconds after which the batch system ends these jobs, where this section says so."""
        return None

    @property
    def carries_proxy(self) -> bool:
        """Whether the batch system itself carries the proxy to the job."""
        return False

    @abstractmethod
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
        """The script of a job.

        Parameters
        ----------
        options : Options
            Section ``mlaas4hep`` of the site's file.
        common : dict of str to Any
            Arguments of dask-jobqueue's classes; a job without a worker has no ``worker_command``.
        name : str
            Of the job.
        folder : str or None
            Folder of its log.
        files : sequence of str
            Secret files, which are transferred where the job's node does not see them.
        walltime : float or None
            Seconds after which it may be ended.
        gpus : int
            How many it needs.
        """

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

    @model_validator(mode="after")
    def _has_room(self) -> Self:
        if text := want_of_room(self.memory, self.processes):
            raise invalid(Problem("memory", text))
        return self


JobsOfOne = TypeVar("JobsOfOne", bound=Jobs)


def with_our_names(jobs: JobsOfOne, given: list[str]) -> JobsOfOne:
    """The section; an error when it gives jobs other names, or makes several of one."""
    if given:
        text = f"{given[0]!r} is not for these jobs: they are told apart by their names, each alone"
        raise invalid(Problem("job-extra-directives", f"{text}; name says what those begin with"))
    return jobs
