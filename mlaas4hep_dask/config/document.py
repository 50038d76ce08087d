"""YAML 1.2 text as plain values, with the line of every key."""

from __future__ import annotations

import re
from typing import Any

import yaml

from mlaas4hep_dask.config.problems import Places, Problem, config_error
from mlaas4hep_dask.errors import ConfigError

_MAX_NODES = 100_000  # after aliases are expanded: nine lines can name a billion values
_MAX_DEPTH = 100
_TAG = "tag:yaml.org,2002:"
_MERGE = f"{_TAG}merge"

# The core schema of YAML 1.2 (section 10.3.2). PyYAML follows 1.1, where 1e-3 is text, no is
# false and 2024-01-01 is a date; merge keys are kept, since anchors are hardly useful without.
_CORE = (
    ("null", r"(?:~|null|Null|NULL|)\Z", ["~", "n", "N", ""]),
    ("bool", r"(?:true|True|TRUE|false|False|FALSE)\Z", list("tTfF")),
    ("int", r"(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)\Z", list("-+0123456789")),
    (
        "float",
        (
            r"(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
            r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z"
        ),
        list("-+.0123456789"),
    ),
    ("merge", r"<<\Z", ["<"]),
)


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  # PyYAML's own name and type


class _Dumper(yaml.SafeDumper):
    """Quotes text that YAML 1.1 or 1.2 would read as something else."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    # outside double quotes PyYAML writes these line breaks as they are, and reads them as '\n'
    style = '"' if re.search("[\x85\u2028\u2029]", text) else None
    return dumper.represent_scalar(f"{_TAG}str", text, style=style)


_Dumper.add_representer(str, _represent_text)
for _name, _pattern, _first in _CORE:
    _Loader.add_implicit_resolver(_TAG + _name, re.compile(_pattern), _first)
    _Dumper.add_implicit_resolver(_TAG + _name, re.compile(_pattern), _first)


def dump(document: dict[str, Any]) -> str:
    """YAML text of plain values, in the order of the keys."""
    return str(yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True))


def parse(text: str, *, place: str) -> tuple[Any, dict[str, int | str]]:
    """The values of one YAML document and the line of every dotted key.

    Raises
    ------
    ConfigError
        Syntax error, duplicate key, unknown tag, key that is not text, or more values than any
        configuration has.
    """
    try:
        node = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        raise _syntax_error(place, error) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        reason = f"not valid YAML: {error.reason} at character {error.character!r}"
        raise _error(place, "", line, reason) from None
    except RecursionError:
        raise _error(place, "", None, f"nested more than {_MAX_DEPTH} levels deep") from None
    if node is None:
        return None, {}
    builder = _Builder(place)
    return builder.build(node, "", 0), builder.lines


class _Builder:
    """Builds values from nodes. Aliases are expanded, and counted while they are."""

    def __init__(self, place: str) -> None:
        self.place = place
        self.lines: dict[str, int | str] = {}
        self.num_nodes = 0

    def build(self, node: yaml.Node, key: str, depth: int) -> Any:
        self.num_nodes += 1
        if self.num_nodes > _MAX_NODES:
            text = f"more than {_MAX_NODES} values after its aliases are expanded"
            raise self.error(node, key, text)
        if depth > _MAX_DEPTH:
            raise self.error(node, key, f"nested more than {_MAX_DEPTH} levels deep")
        tag = node.tag.removeprefix(_TAG)
        if isinstance(node, yaml.MappingNode) and tag == "map":
            return self.mapping(node, key, depth)
        if isinstance(node, yaml.SequenceNode) and tag == "seq":
            return [
                self.child(item, _join(key, index), item, depth)
                for index, item in enumerate(node.value)
            ]
        if isinstance(node, yaml.ScalarNode) and tag in _SCALARS:
            try:
                return _SCALARS[tag](node.value)
            except ValueError:
                raise self.error(node, key, f"{node.value[:40]!r} is no {tag}") from None
        raise self.error(node, key, f"tag {node.tag!r} is not allowed")

    def child(self, at: yaml.Node, key: str, node: yaml.Node, depth: int) -> Any:
        self.lines[key] = _line(at)
        return self.build(node, key, depth + 1)

    def mapping(self, node: yaml.MappingNode, key: str, depth: int) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        for name, value in node.value:
            if name.tag == _MERGE:  # first, so that the mapping's own keys and lines win
                merged |= self.merged(value, key, depth)
        values: dict[str, Any] = {}
        lines: dict[str, int] = {}
        for name, value in node.value:
            if name.tag == _MERGE:
                continue
            if name.tag != f"{_TAG}str":
                key_text = name.value if isinstance(name, yaml.ScalarNode) else "a list or mapping"
                raise self.error(
                    name, key, f"a key must be text, found {key_text}; put it in quotes"
                )
            inner = _join(key, name.value)
            if name.value in values:
                text = f"given twice; first on line {lines[name.value]}"
                raise self.error(name, inner, text)
            lines[name.value] = _line(name)
            values[name.value] = self.child(name, inner, value, depth)
        return {**merged, **values}

    def merged(self, node: yaml.Node, key: str, depth: int) -> dict[str, Any]:
        sources = node.value if isinstance(node, yaml.SequenceNode) else [node]
        merged: dict[str, Any] = {}
        for source in reversed(sources):  # the first one wins
            value = self.build(source, key, depth + 1)
            if not isinstance(value, dict):
                raise self.error(source, key, "expected a mapping after '<<:'")
            merged |= value
        return merged

    def error(self, node: yaml.Node, key: str, text: str) -> ConfigError:
        return _error(self.place, key, _line(node), text)


def _integer(text: str) -> int:
    return int(text, 0) if text[:2] in ("0x", "0o") else int(text)


def _floating(text: str) -> float:
    return float(re.sub(r"^([-+]?)\.(inf|nan)$", r"\1\2", text.lower()))


_SCALARS: dict[str, Any] = {
    "str": str,
    "null": lambda _: None,
    "bool": lambda text: text.lower() == "true",
    "int": _integer,
    "float": _floating,
}


def _join(key: str, name: str | int) -> str:
    return f"{key}.{name}" if key else str(name)


def _line(node: yaml.Node) -> int:
    return node.start_mark.line + 1


def _syntax_error(place: str, error: yaml.MarkedYAMLError) -> ConfigError:
    mark = error.problem_mark or error.context_mark
    text = f"not valid YAML: {error.problem or error.context}"
    if "alias" in f"{error.context} {error.problem}":
        text += "; a pattern that begins with '*' needs quotes"
    elif "'\\t'" in text:
        text += "; indent with spaces, not tabs"
    elif "block end" in text:
        text += "; keys of one mapping begin in one column, and so do the '-' of one list"
    elif "mapping values are not allowed" in text:
        text += "; text that holds ': ' needs quotes"
    return _error(place, "", mark.line + 1 if mark else None, text)


def _error(place: str, key: str, line: int | None, text: str) -> ConfigError:
    lines: dict[str, int | str] = {key: line} if line else {}
    return config_error(Places(place, lines), [Problem(key, text)])
