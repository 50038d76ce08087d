"""The section that says how data files are reached and read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, Field, JsonValue, StringConstraints

from mlaas4hep_dask.config.fields import Text
from mlaas4hep_dask.config.section import Section
from mlaas4hep_dask.errors import either
from mlaas4hep_dask.formats import COMPRESSIONS, FORMATS, TABLES

if TYPE_CHECKING:
    Name = str
else:
    Name = Literal[("auto", *FORMATS)]

Prefix = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9+.-]*://[^|]+$")]


def _with_slash(prefix: str) -> str:
    return prefix if prefix.endswith("/") else f"{prefix}/"


class Reading(Section):
    """How data files are reached and read."""

    format: Name = Field(
        default="auto",
        description="Format of all files. auto takes it from each suffix: "
        + ", ".join(" and ".join(each.suffixes) for each in TABLES.values())
        + f", the text formats also with {either(COMPRESSIONS)}; else ROOT.",
    )
    types: dict[
        Text,
        Literal[
            "bool",
            "int8",
            "int16",
            "int32",
            "int64",
            "uint8",
            "uint16",
            "uint32",
            "uint64",
            "float32",
            "float64",
        ],
    ] = Field(
        default={},
        description=f"By column of {either(each.title for each in TABLES.values())}: type of its "
        "values, where the first rows do not tell.",
        examples=[{"MET_pt": "float32"}],
    )
    delimiter: str | None = Field(
        default=None,
        min_length=1,
        max_length=1,
        description="Character between the columns of CSV files; null is a comma, or a tab in "
        ".tsv files.",
    )
    redirector: Annotated[Prefix, AfterValidator(_with_slash)] | None = Field(
        default=None,
        description="Server of logical file names, which begin with /store/ or lfn:/.",
        examples=["root://xrootd-cms.infn.it/"],
    )
    replicas: list[Prefix] = Field(
        default=[],
        description="Other servers of the same remote files, as URLs up to the path, tried in "
        "turn when one fails.",
        examples=[["root://eospublic.cern.ch/", "https://mirror.example.org/data/"]],
    )
    timeout: float = Field(
        default=60.0,
        gt=0,
        description="Seconds in which a remote server must send the next piece of at most 8 MiB.",
    )
    attempts: int = Field(
        default=3, ge=1, description="Times that a remote file is tried before it is unreadable."
    )
    options: dict[str, dict[str, JsonValue]] = Field(
        default={},
        description="By URL scheme: arguments of its fsspec file system.",
        examples=[{"s3": {"anon": True, "endpoint_url": "https://s3.example.org"}}],
    )


HOW = ("redirector", "replicas", "timeout", "attempts", "options")  # keys that change no result


def is_logical(entry: str, redirector: str | None) -> bool:
    """True for a logical file name, which a redirector finds.

    ``/store/…`` is one only when there is a redirector, so that no local path becomes remote.
    """
    return entry.startswith("lfn:/") or (redirector is not None and entry.startswith("/store/"))
