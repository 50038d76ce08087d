"""The section ``function`` of dataset.yaml: Python code that selects and derives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, JsonValue

from mlaas4hep_dask.config.problems import CALLABLE
from mlaas4hep_dask.config.section import Section
from mlaas4hep_dask.formats import SCHEMAS

if TYPE_CHECKING:
    Schema = str
else:
    Schema = Literal[("awkward", *SCHEMAS)]


class Function(Section):
    """A function that gets the events of a partition and returns those to be used."""

    callable: str = Field(
        pattern=CALLABLE,
        description="module:callable, or path/to/file.py:callable relative to the folder of this "
        "file. It gets an array of events and returns one of the same or fewer events.",
        examples=["analysis.py:select"],
    )
    events: Schema = Field(
        default="awkward",
        description="What the function gets: awkward gives records of the tree's branches; every "
        "other word is a schema of coffea's NanoEvents.",
    )
    kwargs: dict[str, JsonValue] = Field(
        default={}, description="Keyword arguments of the callable.", examples=[{"min_pt": 30}]
    )
