"""The section ``specs`` of dataset.yaml: how the statistics of the branches come about."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BeforeValidator, Field, WithJsonSchema, field_validator, model_validator

from mlaas4hep_dask.config.fields import Size, Text
from mlaas4hep_dask.config.problems import Problem, describe, invalid
from mlaas4hep_dask.config.section import Section

Measured = Literal["full", "subset"]
_MODE_SCHEMA = {"anyOf": [{"enum": [*get_args(Measured)]}, {"const": "sample", "deprecated": True}]}
Mode = Annotated[Measured, WithJsonSchema(_MODE_SCHEMA, mode="validation")]


class SpecsPass(Section):
    """How the statistics come about: measured of all events or of some, or taken from a file."""

    mode: Mode = Field(
        default="full",
        description="full measures all events; subset measures a fraction of the clusters of every "
        "sample, spread over its files, and turns encode.out_of_range to clip.",
    )
    fraction: float = Field(
        default=0.02, gt=0, lt=1, description="Fraction of the clusters that mode subset reads."
    )
    path: Text | None = Field(
        default=None,
        description="A specs.json, or a folder of a run or bundle that holds one, to be used "
        "instead of measuring. 'specs: PATH' is short for it.",
        examples=["runs/ttH", "specs/ttH.json"],
    )
    cache: Text | None = Field(
        default="auto",
        description="Folder that keeps the specs of every file, so that a file is measured once. "
        "auto is the user's cache folder; null keeps none.",
    )
    cache_bytes: Size = Field(
        default=4 * 2**30,
        description="Size of that folder, beyond which what was not used for longest is deleted.",
    )

    @field_validator("cache")
    @classmethod
    def _is_a_folder(cls, cache: str | None) -> str | None:
        if cache in ("off", "none", "no", "false", "disk", "memory"):
            text = f"expected auto, a folder, or null for no cache, found {describe(cache)}"
            raise invalid(Problem("", f"{text}; a folder of that name is './{cache}'"))
        return cache

    @model_validator(mode="after")
    def _is_measured_or_given(self) -> Self:
        if self.path is not None and self.mode == "subset":
            text = "expected mode: full when a path is given, since nothing is measured then"
            raise invalid(Problem("mode", text))
        return self


def _from_path(value: Any) -> Any:
    return {"path": value} if isinstance(value, str) else value


SpecsField = Annotated[
    SpecsPass, BeforeValidator(_from_path, json_schema_input_type=SpecsPass | Text)
]
