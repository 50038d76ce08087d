"""Load dataset.yaml, with overrides from the command line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pydantic import ValidationError

from mlaas4hep_dask.config.document import parse
from mlaas4hep_dask.config.friends import Friend
from mlaas4hep_dask.config.problems import Places, Problem, config_error, describe, problems_of
from mlaas4hep_dask.config.reading import Reading
from mlaas4hep_dask.config.root import Config
from mlaas4hep_dask.config.section import Section
from mlaas4hep_dask.config.sections import Cluster
from mlaas4hep_dask.config.seed import in_full
from mlaas4hep_dask.errors import ConfigError, did_you_mean, names_in, nearest


def load(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """The validated config of a YAML file.

    Parameters
    ----------
    path
        The YAML file; relative data and model files start from its folder.
    overrides
        Each ``key.path=value`` sets one key, as if the file had been edited. The value is YAML;
        a number in the path counts list entries from 0: ``samples.0.weight=2``.

    Raises
    ------
    ConfigError
        The file cannot be read, is not YAML, or does not describe a run. The message lists every
        problem with its line; ``file``, ``line``, ``key`` and ``nearest`` are those of the first.
    """
    path = Path(path)
    file = str(path)
    document, lines = parse(_read(path), place=file)
    if not isinstance(document, dict):
        content = "it is empty" if document is None else f"found {describe(document)}"
        raise ConfigError(
            f"{file}:1: expected a mapping with the key 'samples', but {content}",
            file=file,
            line=1,
            key="",
            nearest=None,
        )
    for override in overrides:
        _apply(document, lines, override)
    document.setdefault("name", path.stem)
    return Config._build(document, places=Places(file, lines, path.parent.absolute()), source=path)


S = TypeVar("S", bound=Section)


class Given(NamedTuple):
    """What can be said of files and a cluster without a YAML file; None for friends not given."""

    reading: Reading
    friends: list[Friend] | None
    cluster: Cluster


def given_of(overrides: Sequence[str]) -> Given:
    """How files are reached and read, their friends and the cluster, where there is no YAML file.

    Parameters
    ----------
    overrides
        Values of the keys ``reading``, ``friends`` and ``cluster``, such as
        ``"reading.delimiter=;"``.

    Raises
    ------
    ConfigError
        As `load`; a key of another section is one too.
    """
    document: dict[str, Any] = {}
    lines: dict[str, int | str] = {}
    for override in overrides:
        _apply(document, lines, override)
        if not document.keys() <= set(Given._fields):
            key = override.partition("=")[0].strip()
            text = "only the keys of reading and cluster, and friends, can be set here"
            raise _refusal(key, text, f"override {override!r}")
    friends = document.get("friends")
    friends = friends if friends is None or isinstance(friends, list) else [friends]
    results = [
        _validated(Friend, each, f"friends.{number}", lines)
        for number, each in enumerate(friends or [])
    ]
    reading = _validated(Reading, document.get("reading", {}), "reading", lines)
    cluster = _validated(Cluster, document.get("cluster", {}), "cluster", lines)
    return Given(reading, None if friends is None else results, cluster)


def cluster_of(name_of: Callable[[str], str], **options: Any) -> Cluster:
    """Section ``cluster`` of arguments.

    Parameters
    ----------
    name_of : callable
        By key, what errors call it.
    **options
        The keys; None is that of dataset.yaml.

    Raises
    ------
    ConfigError
        When one is not valid; lists every problem.
    """
    try:
        return Cluster.model_validate(options)
    except ValidationError as error:
        problems = [
            replace(problem, key=name_of(problem.key)) for problem in problems_of(error, Cluster)
        ]
        raise ConfigError("; ".join(map(str, problems))) from None


def _validated(kind: type[S], value: Any, key: str, lines: dict[str, int | str]) -> S:
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        problems = [
            replace(problem, key=f"{key}.{problem.key}".rstrip("."))
            for problem in problems_of(error, kind)
        ]
        raise config_error(Places(lines=lines), problems) from None


def _read(path: Path) -> str:
    line, near = None, None
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        text = f"not UTF-8 text: {error.reason} (byte 0x{error.object[error.start]:02x})"
    except FileNotFoundError:
        names = names_in(path.parent)
        near = nearest(path.name, names)
        text = f"no such file{did_you_mean(path.name, names)}"
    except IsADirectoryError:
        text = "expected a YAML file, found a directory"
    except (OSError, ValueError) as error:
        text = f"cannot be read: {getattr(error, 'strerror', None) or error}"
    where = f"{path}:{line}" if line else f"{path}"
    raise ConfigError(f"{where}: {text}", file=str(path), line=line, key="", nearest=near)


def _apply(document: dict[str, Any], lines: dict[str, int | str], override: str) -> None:
    place = f"override {override!r}"
    key, equals, text = override.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        text = "expected 'key.path=value', such as 'training.epochs=10'"
        raise _refusal("", text, place)
    value, _ = parse(text, place=place)
    if parts[0] == "seed" and len(parts) > 1 and isinstance(document.get("seed"), int):
        document["seed"] = in_full(document["seed"])
    container: Any = document
    for depth, part in enumerate(parts[:-1], 1):
        path = ".".join(parts[:depth])
        position = _position(container, part, path, place)
        if isinstance(container, dict) and container.get(part) is None:
            if parts[depth].isdigit():
                text = f"not in the file; set all of {path}"
                raise _refusal(f"{path}.{parts[depth]}", text, place)
            container[part] = {}
            _mark(lines, path, place)
        container = container[position]
    path = ".".join(parts)
    container[_position(container, parts[-1], path, place)] = value
    _mark(lines, path, place)


def _position(container: Any, part: str, path: str, place: str) -> Any:
    """The key of a mapping, or the index of a list, that a part of a path means."""
    if isinstance(container, dict):
        return part
    around = path.rpartition(".")[0]
    if not isinstance(container, list):
        raise _refusal(path, f"cannot be set: {around} is {describe(container)}", place)
    if not (part.isascii() and part.isdigit()):
        raise _refusal(path, f"expected the position of a list entry, found {part!r}", place)
    if int(part) >= len(container):
        text = f"no such entry: {around} has {len(container)}, counted from 0"
        raise _refusal(path, text, place)
    return int(part)


def _refusal(key: str, text: str, place: str) -> ConfigError:
    return config_error(Places(lines={key: place}), [Problem(key, text)])


def _mark(lines: dict[str, int | str], key: str, place: str) -> None:
    for inner in [k for k in lines if k.startswith(f"{key}.")]:
        del lines[inner]
    lines[key] = place
