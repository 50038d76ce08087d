"""The data files of every sample: globs and lists expanded, typos refused."""

from __future__ import annotations

import glob
import logging
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from mlaas4hep_dask.config.locations import (
    Recorded,
    Unusable,
    checked_url,
    fileset_files,
    logical_url,
)
from mlaas4hep_dask.config.problems import Places, Problem, config_error
from mlaas4hep_dask.config.reading import Reading, is_logical
from mlaas4hep_dask.config.root import Config
from mlaas4hep_dask.config.rucio import rucio_files
from mlaas4hep_dask.errors import nearest

_log = logging.getLogger(__name__)

_MAX_NAMED = 3


def resolve_files(
    config: Config, recorded: dict[str, Recorded] | None = None
) -> dict[str, list[str]]:
    """The files of every sample, in the order of the YAML; those of a glob in alphabetical order.

    Local files become absolute paths, URLs stay as they are written. Local files are looked up,
    remote ones are not; data sets of Rucio are. A file that one sample names twice is kept once,
    with a warning.

    Parameters
    ----------
    config
        Its ``samples[].files`` are expanded, starting from the folder of the YAML.
    recorded
        Gets, by file, what file sets record of it.

    Returns
    -------
    dict of str to list of str
        Sample name to paths and URLs.

    Raises
    ------
    ConfigError
        A file is missing, a pattern matches nothing, a scheme is unknown, a directory stands
        where a file should, or two samples share a file. Lists every problem with its line.
    """
    files: dict[str, list[str]] = {}
    owners: dict[str, str] = {}  # a file, whatever it was called, and its sample
    problems: list[Problem] = []
    for i, sample in enumerate(config.samples):
        kept = files[sample.name] = []
        repeated: list[str] = []
        for j, entry in enumerate(sample.files):
            key = f"samples.{i}.files.{j}"
            try:
                place = _Place(config.base, sample.name, config.reading, config.tree, recorded)
                found = list(_expand(entry, place))
            except Unusable as error:
                problems.append(Problem(key, error.text, error.near))
                continue
            shared: dict[str, list[str]] = {}
            for file in found:
                identity = file if _is_url(file) else os.path.realpath(file)
                owner = owners.get(identity)
                if owner is None:
                    owners[identity] = sample.name
                    kept.append(file)
                elif owner == sample.name:
                    repeated.append(file)
                else:
                    shared.setdefault(owner, []).append(file)
            problems.extend(
                Problem(
                    key, f"sample {owner!r} has the same files as {sample.name!r}: {_named(both)}"
                )
                for owner, both in shared.items()
            )
        if repeated:
            _log.warning(
                "sample %r names files twice, kept once: %s", sample.name, _named(repeated)
            )
    if problems:
        raise config_error(config._places, problems)
    return files


def expand_files(
    entries: Sequence[str], base: Path, *, where: str, reading: Reading | None = None
) -> list[str]:
    """The files that some entries name, as `resolve_files` finds those of one sample.

    Parameters
    ----------
    entries
        Paths, globs, lists or URLs.
    base
        Folder from which relative entries start.
    where
        What the entries are, for errors.
    reading
        Its redirector finds logical names.

    Raises
    ------
    ConfigError
        As `resolve_files`; lists every problem.
    """
    files: dict[str, str] = {}
    problems: list[Problem] = []
    repeated: list[str] = []
    for entry in entries:
        try:
            for file in _expand(entry, _Place(base, where, reading or Reading())):
                identity = file if _is_url(file) else os.path.realpath(file)
                if identity in files:
                    repeated.append(file)
                files.setdefault(identity, file)
        except Unusable as error:
            problems.append(Problem("", error.text, error.near))
    if problems:
        raise config_error(Places(where), problems)
    if repeated:
        _log.warning("%s name files twice, kept once: %s", where, _named(repeated))
    return list(files.values())


class _Place(NamedTuple):
    """Where an entry stands: the folder that it starts from, its sample and the like."""

    base: Path
    sample: str
    reading: Reading
    tree: str | None = None
    recorded: dict[str, Recorded] | None = None
    is_listed: bool = False


def _expand(entry: str, place: _Place) -> Iterator[str]:
    base, reading = place.base, place.reading
    if is_logical(entry, reading.redirector):
        yield logical_url(entry, reading.redirector)
        return
    if entry.startswith("file://"):
        entry = unquote(entry.removeprefix("file://"))
    elif entry.startswith("rucio://"):
        yield from rucio_files(entry, reading.timeout)
        return
    elif _is_url(entry):
        yield checked_url(entry)
        return
    path = os.path.expandvars(os.path.expanduser(entry.removeprefix("@")))  # noqa: PTH111
    whole = base / path
    is_pattern = glob.has_magic(path) and not whole.is_file()
    fileset, _, dataset = path.partition("#")
    is_fileset = fileset.endswith((".json", ".json.gz")) and reading.format != "jsonl"
    if is_fileset and not is_pattern and (base / fileset).is_file():
        yield from _of_fileset(base / fileset, dataset, place)
    elif entry.startswith("@") or (path.endswith(".txt") and not is_pattern):
        if place.is_listed:
            raise Unusable(f"a list cannot name another list, found {entry!r}")
        yield from _listed(whole, place)
    elif whole.is_file():
        yield _absolute(whole)
    elif whole.is_dir():
        pattern = f"{entry.rstrip('/')}/*.root"
        raise Unusable(f"expected a file, found the directory {entry!r}", pattern)
    elif is_pattern:
        yield from _globbed(path, base)
    else:
        raise _missing(whole)


def _of_fileset(path: Path, dataset: str, place: _Place) -> Iterator[str]:
    if place.is_listed:
        raise Unusable(f"a list cannot name a file set, found {path.name!r}")
    inner = place._replace(base=path.parent, is_listed=True)
    for entry, facts in fileset_files(path, dataset or None, place.sample, place.tree):
        try:
            files = list(_expand(entry, inner))
        except Unusable as error:
            raise Unusable(f"{path.name}: {error.text}", error.near) from None
        if place.recorded is not None and len(files) == 1:  # not a pattern
            place.recorded[files[0]] = facts
        yield from files


def _is_url(entry: str) -> bool:
    return "://" in entry


def _globbed(pattern: str, base: Path) -> Iterator[str]:
    matches = sorted(glob.glob(pattern, root_dir=base, recursive=True))  # noqa: PTH207
    found = [base / match for match in matches if not (base / match).is_dir()]
    if not found:
        only = "only directories" if matches else "no file"
        folder = (base / pattern).parent
        names = names_in(folder)
        endings = {f"*{Path(name).suffix}" for name in names if Path(name).suffix}
        near = nearest(Path(pattern).name, endings)
        near = str(Path(pattern).parent / near) if near else None
        raise Unusable(f"pattern {pattern!r} matches {only} from {base}", near)
    for path in found:
        if path.suffix == ".txt":
            text = f"pattern {pattern!r} matches the text file {path.name!r}; name lists one by one"
            raise Unusable(text)
        yield _absolute(path)


def _listed(path: Path, place: _Place) -> Iterator[str]:
    if path.is_dir():
        raise Unusable(f"expected a list of files, found the directory {str(path)!r}")
    try:
        lines = path.read_bytes().decode("utf-8-sig").splitlines()
    except FileNotFoundError:
        raise _missing(path) from None
    except UnicodeDecodeError:
        raise Unusable(f"the list {str(path)!r} is not UTF-8 text") from None
    except OSError as error:
        raise Unusable(f"the list {str(path)!r} cannot be read: {error.strerror}") from None
    entries = {
        number: entry
        for number, line in enumerate(lines, 1)
        if (entry := re.sub(r"(?:^|\s)#.*", "", line).strip())
    }
    if not entries:
        raise Unusable(f"the list {str(path)!r} names no file")
    for number, entry in entries.items():
        try:
            yield from _expand(entry, place._replace(base=path.parent, is_listed=True))
        except Unusable as error:
            raise Unusable(f"{path.name}:{number}: {error.text}", error.near) from None


def _missing(path: Path) -> Unusable:
    text = f"no such file: {_absolute(path)}"
    if str(path).startswith("/store/"):
        return Unusable(f"{text}; a logical file name needs reading.redirector")
    unset = re.search(r"\$(?:\w+|\{[^}]*\})", str(path))
    if unset:
        return Unusable(f"{text}; the variable {unset[0]} is not set")
    if ".root:" in path.name:
        return Unusable(f"{text}; the tree is named by the key 'tree'")
    if path.exists():
        return Unusable(f"expected a regular file: {_absolute(path)}")
    if not path.parent.is_dir():
        return Unusable(f"{text}; there is no directory {_absolute(path.parent)}")
    return Unusable(text, nearest(path.name, names_in(path.parent)))


def names_in(folder: Path) -> list[str]:
    """The names in a folder; none when it cannot be read."""
    try:
        return sorted(path.name for path in folder.iterdir())
    except OSError:
        return []


def _absolute(path: Path) -> str:
    return os.path.abspath(path)  # noqa: PTH100  # 'a/../b.root' becomes 'b.root', links stay


def _named(files: list[str]) -> str:
    more = len(files) - _MAX_NAMED
    return ", ".join(files[:_MAX_NAMED]) + (f" and {more} more" if more > 0 else "")
