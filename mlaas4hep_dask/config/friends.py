"""Friend trees: more branches of the same events, in other files or trees."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema

from mlaas4hep_dask.config.fields import TEXT_SCHEMA, Text, Tree, as_list
from mlaas4hep_dask.config.problems import Problem, describe, invalid
from mlaas4hep_dask.config.section import Section

_LIST = {"type": "array", "items": TEXT_SCHEMA}
_FILES_SCHEMA = {
    "anyOf": [
        TEXT_SCHEMA,
        _LIST,
        {"type": "object", "additionalProperties": TEXT_SCHEMA},
        {"type": "null"},
    ],
    "examples": [{"*.root": "friends/*_dnn.root"}, ["dnn_1.root", "dnn_2.root"]],
}
_BY_SCHEMA = {
    "anyOf": [{"const": "entry"}, TEXT_SCHEMA, _LIST],
    "examples": ["entry", ["run", "luminosityBlock", "event"]],
}


def _as_files(value: Any) -> Any:
    files = value if value is None or isinstance(value, dict) else as_list(value)
    values = [*files, *files.values()] if isinstance(files, dict) else files or []
    is_text = isinstance(values, list) and all(isinstance(v, str) and v for v in values)
    if files in ([], {}) or not isinstance(files, list | dict | None) or not is_text:
        text = "expected files, or a mapping from patterns of files to those of their friends"
        raise invalid(Problem("", f"{text}, found {describe(value)}"))
    return files


def _as_names(value: Any) -> Any:
    return [] if value == "entry" else as_list(value)


class Friend(Section):
    """A tree with more branches of the events of the files."""

    tree: Tree | None = Field(
        default=None,
        description="Name of the friend tree. null means that of the file whose friend it is.",
    )
    files: Annotated[
        list[Text] | dict[Text, Text] | None,
        BeforeValidator(_as_files),
        WithJsonSchema(_FILES_SCHEMA, mode="validation"),
    ] = Field(
        default=None,
        description="Where it is: a mapping from a pattern of files with * to the friend of each, "
        "from its folder; or files, under samples[].friends one for each file of the sample. null "
        "means the same file.",
    )
    by: Annotated[
        list[Text],
        BeforeValidator(_as_names),
        WithJsonSchema(_BY_SCHEMA, mode="validation"),
    ] = Field(
        default=[],
        description="Branches that both trees have and that identify an event, such as run and "
        "event. entry, the default, joins entry by entry.",
    )
    prefix: str = Field(
        default="", description="Text in front of the names of its branches, such as 'dnn.'."
    )
