"""The files that one entry of ``files`` names: a path, a pattern, a list, a file set or a URL."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from mlaas4hep_dask.catalog.locations import (
    Recorded,
    Unusable,
    checked_url,
    fileset_files,
    logical_url,
    parted,
)
from mlaas4hep_dask.catalog.rucio import rucio_files
from mlaas4hep_dask.config.reading import Reading, is_logical
from mlaas4hep_dask.errors import names_in, nearest


def is_url(entry: str) -> bool:
    """True for an entry with a scheme."""
    return "://" in entry


class Place(NamedTuple):
    """Where an entry stands.

    Parameters
    ----------
    base : Path
        Folder from which a relative entry starts.
    sample : str
        Names the data set of a file set.
    reading : Reading
        Its redirector finds logical names, its format tells lists from file sets.
    tree : str or None
        What a file set has to say of the tree; None where anything will do.
    recorded : dict or None
        Gets, by file, what file sets record of it.
    is_listed : bool
        The entry stands in a list or a file set, and can name no other.
    """

    base: Path
    sample: str
    reading: Reading
    tree: str | None = None
    recorded: dict[str, Recorded] | None = None
    is_listed: bool = False


def expand(entry: str, place: Place) -> Iterator[tuple[str, str | None]]:
    """Files, and their trees where the entry or a list in it names them.

    Raises
    ------
    Unusable
        When the entry names no file.
    """
    if entry.startswith("@") or _is_local(entry, place.base):  # whatever its name has in it
        yield from _files_of(entry, place)
        return
    file, tree = parted(entry)
    for path, listed_tree in _files_of(file, place):
        yield path, listed_tree or tree


def _is_local(entry: str, base: Path) -> bool:
    return not is_url(entry) and (base / entry).is_file()


def _files_of(entry: str, place: Place) -> Iterator[tuple[str, str | None]]:
    base, reading = place.base, place.reading
    if is_logical(entry, reading.redirector):
        yield logical_url(entry, reading.redirector), None
        return
    if entry.startswith("file://"):
        entry = unquote(entry.removeprefix("file://"))
    elif entry.startswith("rucio://"):
        yield from ((file, None) for file in rucio_files(entry, reading.timeout))
        return
    elif is_url(entry):
        yield checked_url(entry), None
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
        yield _absolute(whole), None
    elif whole.is_dir():
        pattern = f"{entry.rstrip('/')}/*.root"
        raise Unusable(f"expected a file, found the directory {entry!r}", pattern)
    elif is_pattern:
        yield from ((file, None) for file in _globbed(path, base))
    else:
        raise _missing(whole)


def _of_fileset(path: Path, dataset: str, place: Place) -> Iterator[tuple[str, str | None]]:
    if place.is_listed:
        raise Unusable(f"a list cannot name a file set, found {path.name!r}")
    inner = place._replace(base=path.parent, is_listed=True)
    for entry, facts in fileset_files(path, dataset or None, place.sample, place.tree):
        try:
            files = list(expand(entry, inner))
        except Unusable as error:
            raise Unusable(f"{path.name}: {error.text}", error.near) from None
        if place.recorded is not None and len(files) == 1:  # not a pattern
            place.recorded[files[0][0]] = facts
        yield from files


def _globbed(pattern: str, base: Path) -> Iterator[str]:
    matches = sorted(glob.glob(pattern, root_dir=base, recursive=True))  # noqa: PTH207
    paths = [base / match for match in matches if not (base / match).is_dir()]
    if not paths:
        only = "only directories" if matches else "no file"
        folder = (base / pattern).parent
        names = names_in(folder)
        endings = {f"*{Path(name).suffix}" for name in names if Path(name).suffix}
        near = nearest(Path(pattern).name, endings)
        near = str(Path(pattern).parent / near) if near else None
        raise Unusable(f"pattern {pattern!r} matches {only} from {base}", near)
    for path in paths:
        if path.suffix == ".txt":
            text = f"pattern {pattern!r} matches the text file {path.name!r}; name lists one by one"
            raise Unusable(text)
        yield _absolute(path)


def _listed(path: Path, place: Place) -> Iterator[tuple[str, str | None]]:
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
            yield from expand(entry, place._replace(base=path.parent, is_listed=True))
        except Unusable as error:
            raise Unusable(f"{path.name}:{number}: {error.text}", error.near) from None


def _missing(path: Path) -> Unusable:
    text = f"no such file: {_absolute(path)}"
    if str(path).startswith("/store/"):
        return Unusable(f"{text}; a logical file name needs reading.redirector")
    unset = re.search(r"\$(?:\w+|\{[^}]*\})", str(path))
    if unset:
        return Unusable(f"{text}; the variable {unset[0]} is not set")
    if path.exists():
        return Unusable(f"expected a regular file: {_absolute(path)}")
    if not path.parent.is_dir():
        return Unusable(f"{text}; there is no directory {_absolute(path.parent)}")
    return Unusable(text, nearest(path.name, names_in(path.parent)))


def _absolute(path: Path) -> str:
    return os.path.abspath(path)  # noqa: PTH100  # 'a/../b.root' becomes 'b.root', links stay
