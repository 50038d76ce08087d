"""What is wrong with a configuration, and where it is written."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticCustomError

from mlaas4hep_dask.config.synonyms import absent, meant
from mlaas4hep_dask.errors import ConfigError, either, nearest
from mlaas4hep_dask.places import PLACES, SCHEMES

SLUG = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
ADDRESS = (
    rf"^(?:{'|'.join(PLACES)}|(?:{'|'.join(SCHEMES)})://"
    r"(?:[^\s/:\[\]]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5})$"
)
ADDRESS_EXPECTED = either(map(repr, (*PLACES, *(f"{scheme}://host:port" for scheme in SCHEMES))))
PIECE = r"^(?:[A-Za-z_]\w*|(?:[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*|[^:]*[^:/]\.py):[A-Za-z_]\w*)$"
CALLABLE = r"^(?:[A-Za-z_][\w]*(?:\.[A-Za-z_][\w]*)*|[^:]*[^:/]\.py):[A-Za-z_][\w]*$"

_EXPECTED = {
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "text",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "too_short": "at least one entry",
    "string_too_short": "text that is not empty",
}
_EXPECTED_PATTERN = {
    SLUG: "a name of letters, digits, '.', '_' and '-' that begins with a letter or digit",
    ADDRESS: ADDRESS_EXPECTED,
    CALLABLE: "'module:callable' or 'path/to/file.py:callable'",
    PIECE: "a name in torch, 'module:callable' or 'path/to/file.py:callable'",
}
_LIMITS = {
    "greater_than": ("more than", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("less than", "lt"),
    "less_than_equal": ("at most", "le"),
}


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with the value of one key."""

    key: str
    text: str
    nearest: str | None = None
    after: str = ""  # said last

    def __str__(self) -> str:
        key = re.sub(r"\.([0-9]+)(?=\.|$)", r"[\1]", self.key)
        hint = f"; did you mean {self.nearest!r}?" if self.nearest else ""
        after = f"{'' if hint else ';'} {self.after}" if self.after else ""
        return f"{key}: {self.text}{hint}{after}" if key else f"{self.text}{hint}{after}"


@dataclass(frozen=True)
class Places:
    """Where every key was written, and where the files are that it names.

    Parameters
    ----------
    file : str or None
        The YAML file.
    lines : mapping of str to int or str
        By dotted key: its line in the file, or the text of an override.
    base : Path
        The folder from which relative files start.
    """

    file: str | None = None
    lines: Mapping[str, int | str] = field(default_factory=dict)
    base: Path = field(default_factory=Path.cwd)

    def resolve(self, path: str) -> Path:
        """The absolute path of a file that a key names; ``~`` and ``$VARS`` are expanded."""
        expanded = os.path.expandvars(os.path.expanduser(path))  # noqa: PTH111
        return Path(os.path.abspath(self.base / expanded))  # noqa: PTH100  # links stay

    def line_of(self, key: str) -> int | None:
        """The line of a key, or of the nearest key around it that is in the file."""
        line = self._nearest_around(key)
        return line if isinstance(line, int) else None

    def where(self, key: str) -> str:
        """``file:line`` of a key, or the override that set it."""
        place = self._nearest_around(key)
        if isinstance(place, str):
            return place
        file = self.file or "config"
        return f"{file}:{place}" if place else file

    def error(self, key: str, text: str, near: str | None = None) -> ConfigError:
        """What is wrong with a key, for the caller to raise, with its place before the text."""
        return ConfigError(
            f"{self.where(key)}: {text}",
            file=self.file,
            line=self.line_of(key),
            key=key,
            nearest=near,
        )

    def _nearest_around(self, key: str) -> int | str | None:
        while key not in self.lines and "." in key:
            key = key.rpartition(".")[0]
        return self.lines.get(key)


def config_error(places: Places, problems: Iterable[Problem]) -> ConfigError:
    """One error that lists every problem in the order of the file."""
    ordered = sorted(problems, key=lambda p: places.line_of(p.key) or sys.maxsize)
    first = ordered[0]
    return ConfigError(
        "\n".join(f"{places.where(problem.key)}: {problem}" for problem in ordered),
        file=places.file,
        line=places.line_of(first.key),
        key=first.key,
        nearest=first.nearest,
    )


def invalid(*problems: Problem) -> PydanticCustomError:
    """An error for a validator to raise; the keys count from the value it was given."""
    text = "\n".join(map(str, problems))
    return PydanticCustomError("problems", "{text}", {"text": text, "problems": problems})


def problems_of(
    error: ValidationError, section: type[BaseModel], *, habits: bool = True
) -> list[Problem]:
    """What pydantic found, in the words of a person who wrote a YAML file.

    Parameters
    ----------
    error : ValidationError
        What was raised.
    section : type
        The model of the whole document.
    habits : bool
        Whether the names that other tools give to keys of dataset.yaml are known.
    """
    return [problem for detail in error.errors() for problem in _translate(detail, section, habits)]


def _translate(detail: ErrorDetails, section: type[BaseModel], habits: bool) -> list[Problem]:
    loc, kind, value = detail["loc"], detail["type"], detail["input"]
    if loc[:2] == ("model", "kwargs"):  # below, the kind of every value stands between the keys
        loc = (*loc[:3], *loc[4::2])
    ctx: dict[str, Any] = detail.get("ctx", {})
    key = ".".join(map(str, loc))
    if kind == "problems":
        return [
            replace(inner, key=".".join(filter(None, (key, inner.key))))
            for inner in ctx["problems"]
        ]
    if kind == "extra_forbidden":
        return [_unknown_key(key, str(loc[-1]), section, _section(section, loc[:-1]), habits)]
    if kind == "missing":
        return [Problem(key, "required, but missing")]
    near = None
    if kind == "literal_error":
        expected = ctx["expected"]
        near = (
            nearest(value, re.findall(r"'([^']*)'", expected)) if isinstance(value, str) else None
        )
    elif kind == "string_pattern_mismatch":
        expected = _EXPECTED_PATTERN[ctx["pattern"]]
        near = nearest(value, PLACES) if ctx["pattern"] == ADDRESS else None
    elif kind in _LIMITS:
        words, limit = _LIMITS[kind]
        expected = f"{words} {ctx[limit]:g}"
    elif kind in _EXPECTED:
        expected = _EXPECTED[kind]
        if kind.startswith("model_"):
            keys = ", ".join(repr(name) for name in [*_fields(_section(section, loc))][:4])
            expected += f" with keys such as {keys}"
    else:
        return [Problem(key, f"{detail['msg']}, found {describe(value)}")]
    return [Problem(key, f"expected {expected}, found {describe(value)}", near)]


def describe(value: object) -> str:
    """A value and its kind, as an error shows them."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return f"{str(value).lower()} (true or false)"
    if isinstance(value, dict):
        return "a mapping" if value else "an empty mapping"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    text = repr(value)
    text = text if len(text) <= 60 else f"{text[:57]}..."
    return f"{text} (text)" if isinstance(value, str) else text


def _section(section: type[BaseModel], loc: tuple[int | str, ...]) -> type[BaseModel]:
    for part in loc:
        fields = _fields(section)
        if isinstance(part, str) and part in fields:
            annotation = fields[part].annotation
            inner = [a for a in (annotation, *get_args(annotation)) if _is_model(a)]
            section = inner[0] if inner else section
    return section


def _fields(section: type[BaseModel]) -> dict[str, FieldInfo]:
    """The fields by their keys."""
    return {field.alias or name: field for name, field in section.model_fields.items()}


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _unknown_key(
    key: str, name: str, root: type[BaseModel], section: type[BaseModel], habits: bool
) -> Problem:
    place = re.sub(r"\.[0-9]+", "[]", key).rpartition(".")[0]
    listed = f"keys {'at the top level' if section is root else 'here'}: "
    fields = _fields(section)
    listed += ", ".join(fields)
    every = keys_of(root)
    synonym = meant(name, place, every) if habits else None
    inside = None if synonym is None else synonym.removeprefix(f"{place}.")
    text = "unknown key"
    if inside in fields:
        near = inside
    elif habits and (why := absent(name)) is not None:
        near, text = None, f"{text}; {why}"
    elif (near := nearest(name, fields)) is not None:
        pass
    elif name in _fields(root):
        text = f"{text} here; {name!r} belongs at the top level"
    elif synonym is not None:
        near = synonym
    else:
        leaves = {full.rpartition(".")[2]: full for full in every if not full.startswith("samples")}
        leaf = nearest(name, leaves)
        near = None if leaf is None else leaves[leaf]
    return Problem(key, text, near, listed)


def keys_of(root: type[BaseModel]) -> frozenset[str]:
    """All keys in full: ``seed``, ``training.epochs``, ``samples[].label``."""
    keys = set(_fields(root))
    for parent in _fields(root):
        section = _section(root, (parent,))
        if section is not root:
            stem = f"{parent}[]" if parent == "samples" else parent
            keys.update(f"{stem}.{leaf}" for leaf in _fields(section))
    return frozenset(keys)
