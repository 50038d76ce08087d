"""The types of single values: names, sizes in bytes, lists of files."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, WithJsonSchema

from mlaas4hep_dask.config.problems import SLUG, Problem, describe, invalid
from mlaas4hep_dask.errors import nearest
from mlaas4hep_dask.places import STORAGES

_SIZE = r"^([0-9]{1,15}(?:\.[0-9]{1,9})?) ?(?:([kKmMgGtT])([iI])?[bB]?|[bB])$"
_SIZE_SCHEMA = {
    "anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": _SIZE}],
    "examples": [67108864, "64 MiB", "1.5 GB"],
}
LEAST_MEMORY = 200 * 10**6  # bytes of a worker: less is used up before it has read anything
TEXT_SCHEMA = {"type": "string", "minLength": 1}


def texts_schema(*examples: Any, **limits: int) -> WithJsonSchema:
    """The schema of a text or a list of texts."""
    listed = {"type": "array", "items": TEXT_SCHEMA, **limits}
    schema = {"anyOf": [TEXT_SCHEMA, listed], "examples": list(examples)}
    return WithJsonSchema(schema, mode="validation")


def _bytes_of(value: Any) -> Any:
    """A size such as ``64 MiB`` (2**20) or ``1.5 GB`` (10**9) in bytes."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(_SIZE, value)
    if match is None:
        text = "expected a number of bytes or a size such as '64 MiB' or '1.5 GB'"
        raise invalid(Problem("", f"{text}, found {describe(value)}"))
    number, prefix, binary = match.groups()
    power = "kmgt".index(prefix.lower()) + 1 if prefix else 0
    return round(Fraction(number) * (1024 if binary else 1000) ** power)


def as_list(value: Any) -> Any:
    """As `listed`, and nothing, as of 'files:' with nothing behind it, as an empty list."""
    return [] if value is None else listed(value)


def listed(value: Any) -> Any:
    """A text as a list of one."""
    return [value] if isinstance(value, str) else value


def bare(tree: str) -> str:
    """The name of a tree without slashes around it, as uproot has it."""
    return tree.strip("/")


def _named(tree: str) -> str:
    if not bare(tree):
        raise invalid(Problem("", f"expected the name of a tree, found {describe(tree)}"))
    return bare(tree)


def _as_patterns(value: Any) -> Any:
    """Every collection with a list of patterns; ``false``, for branches apart, is an empty one."""
    if not isinstance(value, dict):
        return value
    problems = []
    results: dict[Any, list[str]] = {}
    for name, entry in value.items():
        patterns = [entry] if isinstance(entry, str) else entry
        if entry is False or entry == []:
            results[name] = []
        elif not isinstance(patterns, list) or not patterns or not all(patterns):
            text = "expected branches or patterns of a collection, or false for branches apart"
            problems.append(Problem(str(name), f"{text}, found {describe(entry)}"))
        else:
            results[name] = patterns
    if problems:
        raise invalid(*problems)
    return results


def want_of_room(memory: int, num_workers: int = 1) -> str:
    """Why some workers have no room in so much memory; empty when they have."""
    if memory >= num_workers * LEAST_MEMORY:
        return ""
    each = f" for each of {num_workers} workers" if num_workers > 1 else ""
    least = f"expected at least {LEAST_MEMORY // 10**6} MB{each}: so much a worker takes before"
    return f"{least} it has read anything; found {memory:,} bytes"


def _with_room(memory: int) -> int:
    if text := want_of_room(memory):
        raise invalid(Problem("", text))
    return memory


def _blocks_place(value: str) -> str:
    words = ("auto", *STORAGES)
    if value in words or "/" in value:
        return value
    text = f"expected {', '.join(words)}, or a folder, with a / in its path"
    raise invalid(Problem("", f"{text}, found {describe(value)}", nearest(value, words)))


Slug = Annotated[str, StringConstraints(pattern=SLUG)]
Text = Annotated[str, StringConstraints(min_length=1)]
BlocksPlace = Annotated[  # a word, or a folder
    str,
    AfterValidator(_blocks_place),
    WithJsonSchema(
        {
            "anyOf": [{"enum": ["auto", *STORAGES]}, {"type": "string", "pattern": "/"}],
            "examples": ["auto", "/ceph/users/me/blocks"],
        },
        mode="validation",
    ),
]
Tree = Annotated[str, StringConstraints(min_length=1), AfterValidator(_named)]
Size = Annotated[
    int, Field(ge=1), BeforeValidator(_bytes_of), WithJsonSchema(_SIZE_SCHEMA, mode="validation")
]
WorkerMemory = Annotated[Size, AfterValidator(_with_room)]
_COLLECTIONS_SCHEMA = {
    "type": "object",
    "additionalProperties": {
        "anyOf": [
            TEXT_SCHEMA,
            {"type": "array", "items": TEXT_SCHEMA, "minItems": 1},
            {"const": False},
        ]
    },
    "examples": [{"Jet": ["Jet_pt", "Jet_eta"], "Track": "trk_*", "Tau": False}],
}
Collections = Annotated[
    dict[Text, list[Text]],
    BeforeValidator(_as_patterns),
    WithJsonSchema(_COLLECTIONS_SCHEMA, mode="validation"),
]
Files = Annotated[
    list[Text],
    BeforeValidator(as_list),
    texts_schema(
        "data/ttH_*.root", ["root://host.example//store/a.root", "@more_files.txt"], minItems=1
    ),
]
