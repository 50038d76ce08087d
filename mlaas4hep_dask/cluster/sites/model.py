"""A site's file as a frozen model: one batch system, and what its jobs need."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

from pydantic import Field, JsonValue, ValidationError, create_model, model_validator

from mlaas4hep_dask.cluster.settings import merged
from mlaas4hep_dask.cluster.sites.options import Head, Options
from mlaas4hep_dask.cluster.systems.fields import Part
from mlaas4hep_dask.cluster.systems.jobs import Jobs
from mlaas4hep_dask.cluster.systems.registry import MODULES
from mlaas4hep_dask.config.problems import Problem, invalid, problems_of
from mlaas4hep_dask.errors import either
from mlaas4hep_dask.places import GROUPS, SYSTEMS

HEAD = "head"
KINDS = (*GROUPS, HEAD)  # of jobs


class _Queue(Part):
    """Section ``jobqueue``: one batch system, with a field for each."""

    @model_validator(mode="after")
    def _is_of_one_system(self) -> Self:
        names = [name for name in SYSTEMS if getattr(self, name) is not None]
        if len(names) != 1:
            number = " and ".join(names) or "none"
            text = f"expected the section of one batch system, {either(SYSTEMS)}, found {number}"
            raise invalid(Problem("", text))
        return self

    @property
    def system(self) -> str:
        """The batch system."""
        return next(name for name in SYSTEMS if getattr(self, name) is not None)


def _with_systems() -> type[_Queue]:
    fields: dict[str, Any] = {
        name: (system.jobs | None, Field(default=None, description=f"J{SYSTEMS[name].title[1:]}."))
        for name, system in MODULES.items()
    }
    return create_model("Queue", __base__=_Queue, **fields)


if TYPE_CHECKING:
    Queue = _Queue
else:
    Queue = _with_systems()


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
    def jobs(self) -> Jobs:
        """The section of the batch system."""
        section: Jobs = getattr(self.jobqueue, self.jobqueue.system)
        return section

    def jobs_of(self, group: str) -> Jobs:
        """The section of the batch system, with what differs for a group or the head."""
        values = self.jobs.model_dump(by_alias=True, exclude_unset=True)
        differs: Head = getattr(self.mlaas4hep, group)
        return type(self.jobs).model_validate(merged(values, differs.jobqueue))
