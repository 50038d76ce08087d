"""The data files of every sample: globs and lists expanded, typos refused."""

from __future__ import annotations

import glob
import logging
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from mlaas4hep_dask.catalog.friends import friend_of
from mlaas4hep_dask.catalog.locations import (
    DataFile,
    Recorded,
    Unusable,
    checked_url,
    fileset_files,
    logical_url,
    parted,
)
from mlaas4hep_dask.catalog.rucio import rucio_files
from mlaas4hep_dask.config import Friend, Sample
from mlaas4hep_dask.config.fields import bare
from mlaas4hep_dask.config.problems import Places, Problem, config_error
from mlaas4hep_dask.config.reading import Reading, is_logical
from mlaas4hep_dask.errors import names_in, nearest

_log = logging.getLogger(__name__)

_MAX_NAMED = 3


@dataclass(frozen=True)
class Listing:
    """What tells the files of a data set.

    Parameters
    ----------
    samples : sequence of Sample
        With their files.
    tree : str
        The tree of files whose sample or entry names no other.
    friends : sequence of Friend
        Friend trees of the files of all samples.
    reading : Reading
        Its redirector finds logical names, its format tells lists from file sets.
    places : Places
        The folder that relative entries start from, and the lines for errors.
    """

    samples: Sequence[Sample]
    tree: str = "Events"
    friends: Sequence[Friend] = ()
    reading: Reading = field(default_factory=Reading)
    places: Places = field(default_factory=Places)

    def tree_of(self, number: int) -> tuple[str, str]:
        """The tree of the files of a sample that name none, and the key that gives it."""
        tree = self.samples[number].tree
        return (self.tree, "tree") if tree is None else (tree, f"samples.{number}.tree")


def resolve_files(
    listing: Listing, recorded: dict[str, Recorded] | None = None
) -> dict[str, list[DataFile]]:
    """The files of every sample, in the order of the YAML; those of a glob in alphabetical order.

    Local files become absolute paths, URLs stay as they are written. Local files are looked up,
    remote ones are not; data sets of Rucio are. A tree of a file that one sample names twice is
    kept once, with a warning. Two samples may have different trees of one file.

    Parameters
    ----------
    listing
        The entries of the samples, which are expanded.
    recorded
        Gets, by file, what file sets record of it.

    Returns
    -------
    dict of str to list of DataFile
        Sample name to paths and URLs, with the tree in each.

    Raises
    ------
    ConfigError
        A file is missing, a pattern matches nothing, a scheme is unknown, a directory stands
        where a file should, or two samples share a tree of a file. Lists every problem with its
        line.
    """
    files: dict[str, list[DataFile]] = {}
    owners: dict[tuple[str, str], str] = {}  # a file, whatever it was called, its tree; its sample
    problems: list[Problem] = []
    for i, sample in enumerate(listing.samples):
        kept = files[sample.name] = []
        repeated: list[str] = []
        tree, at = listing.tree_of(i)
        for j, entry in enumerate(sample.files):
            key = f"samples.{i}.files.{j}"
            try:
                base, reading = listing.places.base, listing.reading
                place = _Place(base, sample.name, reading, tree, recorded)
                found = [
                    DataFile(file, own or tree, key if own else at)
                    for file, own in _expand(entry, place)
                ]
            except Unusable as error:
                problems.append(Problem(key, error.text, error.near))
                continue
            shared: dict[str, list[str]] = {}
            for file in found:
                owner = owners.get(_identity(file))
                if owner is None:
                    owners[_identity(file)] = sample.name
                    kept.append(file)
                elif owner == sample.name:
                    repeated.append(file.file)
                else:
                    shared.setdefault(owner, []).append(file.file)
            problems.extend(
                Problem(
                    key,
                    f"sample {owner!r} has the same files as {sample.name!r}: {_named(both)}; "
                    "another tree of a file is named by samples[].tree",
                )
                for owner, both in shared.items()
            )
        _befriend(kept, listing, i, problems)
        if repeated:
            _log.warning(
                "sample %r names files twice, kept once: %s", sample.name, _named(repeated)
            )
    if problems:
        raise config_error(listing.places, problems)
    return files


def _befriend(
    files: list[DataFile], listing: Listing, number: int, problems: list[Problem]
) -> None:
    """Give the files of a sample their friends."""
    of_all = [(f"friends.{j}", each) for j, each in enumerate(listing.friends)]
    sample = listing.samples[number]
    of_sample = [(f"samples.{number}.friends.{j}", each) for j, each in enumerate(sample.friends)]
    base, reading = listing.places.base, listing.reading
    for key, friend in (*of_all, *of_sample):
        try:
            is_shared = key.startswith("friends")
            files[:] = with_friend(files, friend, base, reading, is_shared=is_shared)
        except Unusable as error:
            problem = Problem(f"{key}.files", error.text, error.near)
            problems.extend([problem] if problem not in problems else [])


def with_friend(
    files: Sequence[DataFile],
    friend: Friend,
    base: Path,
    reading: Reading,
    *,
    is_shared: bool = False,
) -> list[DataFile]:
    """The files with one more friend each.

    Raises
    ------
    Unusable
        When one has none.
    """
    listed: list[str] = []
    if isinstance(friend.files, list):
        if is_shared and not friend.by:
            raise Unusable(
                "files that are joined by entry belong to one sample: write them under "
                "samples[].friends, or as a mapping from patterns of files"
            )
        place = _Place(base, "friends", reading)
        for entry in friend.files:
            listed += [
                file if tree is None else f"{file}:{tree}" for file, tree in _expand(entry, place)
            ]
        if not friend.by and len(listed) != len(files):
            raise Unusable(
                f"expected a friend for each of {len(files)} files, found {len(listed)} files"
            )
    return [
        file._replace(
            friends=(*file.friends, friend_of(friend, file.file, file.tree, listed, number))
        )
        for number, file in enumerate(files)
    ]


def befriended(
    files: Sequence[DataFile], friends: Sequence[Friend], base: Path, *, reading: Reading
) -> list[DataFile]:
    """Some files with their friends, as `resolve_files` gives them to those of one sample.

    Raises
    ------
    ConfigError
        When a file has no friend.
    """
    made = list(files)
    for number, friend in enumerate(friends):
        try:
            made = with_friend(made, friend, base, reading)
        except Unusable as error:
            problem = Problem(f"friends.{number}.files", error.text, error.near)
            raise config_error(Places(), [problem]) from None
    return made


def expand_files(
    entries: Sequence[str],
    base: Path,
    *,
    where: str,
    tree: str | None,
    reading: Reading | None = None,
) -> list[DataFile]:
    """The files that some entries name, as `resolve_files` finds those of one sample.

    Parameters
    ----------
    entries
        Paths, globs, lists or URLs.
    base
        Folder from which relative entries start.
    where
        What the entries are, for errors.
    tree
        The tree of files whose entries name none; an empty name where there is none either.
    reading
        Its redirector finds logical names.

    Raises
    ------
    ConfigError
        As `resolve_files`; lists every problem.
    """
    files: dict[tuple[str, str], DataFile] = {}
    problems: list[Problem] = []
    repeated: list[str] = []
    for entry in entries:
        try:
            for file, own in _expand(entry, _Place(base, where, reading or Reading())):
                made = DataFile(file, own or bare(tree or ""))
                if _identity(made) in files:
                    repeated.append(file)
                files.setdefault(_identity(made), made)
        except Unusable as error:
            problems.append(Problem("", error.text, error.near))
    if problems:
        raise config_error(Places(where), problems)
    if repeated:
        _log.warning("%s name files twice, kept once: %s", where, _named(repeated))
    return list(files.values())


def _identity(of: DataFile) -> tuple[str, str]:
    return of.file if _is_url(of.file) else os.path.realpath(of.file), of.tree


class _Place(NamedTuple):
    """Where an entry stands: the folder that it starts from, its sample and the like."""

    base: Path
    sample: str
    reading: Reading
    tree: str | None = None
    recorded: dict[str, Recorded] | None = None
    is_listed: bool = False


def _expand(entry: str, place: _Place) -> Iterator[tuple[str, str | None]]:
    """Files, and their trees where the entry or a list in it names them."""
    if entry.startswith("@") or _is_local(entry, place.base):  # whatever its name has in it
        yield from _files_of(entry, place)
        return
    file, tree = parted(entry)
    for found, own in _files_of(file, place):
        yield found, own or tree


def _is_local(entry: str, base: Path) -> bool:
    return not _is_url(entry) and (base / entry).is_file()


def _files_of(entry: str, place: _Place) -> Iterator[tuple[str, str | None]]:
    base, reading = place.base, place.reading
    if is_logical(entry, reading.redirector):
        yield logical_url(entry, reading.redirector), None
        return
    if entry.startswith("file://"):
        entry = unquote(entry.removeprefix("file://"))
    elif entry.startswith("rucio://"):
        yield from ((file, None) for file in rucio_files(entry, reading.timeout))
        return
    elif _is_url(entry):
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


def _of_fileset(path: Path, dataset: str, place: _Place) -> Iterator[tuple[str, str | None]]:
    if place.is_listed:
        raise Unusable(f"a list cannot name a file set, found {path.name!r}")
    inner = place._replace(base=path.parent, is_listed=True)
    for entry, facts in fileset_files(path, dataset or None, place.sample, place.tree):
        try:
            files = list(_expand(entry, inner))
        except Unusable as error:
            raise Unusable(f"{path.name}: {error.text}", error.near) from None
        if place.recorded is not None and len(files) == 1:  # not a pattern
            place.recorded[files[0][0]] = facts
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


def _listed(path: Path, place: _Place) -> Iterator[tuple[str, str | None]]:
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
    if path.exists():
        return Unusable(f"expected a regular file: {_absolute(path)}")
    if not path.parent.is_dir():
        return Unusable(f"{text}; there is no directory {_absolute(path.parent)}")
    return Unusable(text, nearest(path.name, names_in(path.parent)))


def _absolute(path: Path) -> str:
    return os.path.abspath(path)  # noqa: PTH100  # 'a/../b.root' becomes 'b.root', links stay


def _named(files: list[str]) -> str:
    more = len(files) - _MAX_NAMED
    return ", ".join(files[:_MAX_NAMED]) + (f" and {more} more" if more > 0 else "")
