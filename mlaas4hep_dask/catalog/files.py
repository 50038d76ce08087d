"""The data files of every sample: globs and lists expanded, typos refused."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mlaas4hep_dask.catalog.entries import Place, expand, is_url
from mlaas4hep_dask.catalog.friends import friend_of
from mlaas4hep_dask.catalog.locations import DataFile, Recorded, Unusable
from mlaas4hep_dask.config import Friend, Sample
from mlaas4hep_dask.config.fields import bare
from mlaas4hep_dask.config.problems import Places, Problem, config_error
from mlaas4hep_dask.config.reading import Reading

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
        of_sample = files[sample.name] = []
        repeated: list[str] = []
        tree, at = listing.tree_of(i)
        for j, entry in enumerate(sample.files):
            key = f"samples.{i}.files.{j}"
            try:
                base, reading = listing.places.base, listing.reading
                place = Place(base, sample.name, reading, tree, recorded)
                of_entry = [
                    DataFile(file, inner or tree, key if inner else at)
                    for file, inner in expand(entry, place)
                ]
            except Unusable as error:
                problems.append(Problem(key, error.text, error.near))
                continue
            shared: dict[str, list[str]] = {}
            for file in of_entry:
                owner = owners.get(_identity(file))
                if owner is None:
                    owners[_identity(file)] = sample.name
                    of_sample.append(file)
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
        _befriend(of_sample, listing, i, problems)
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
        place = Place(base, "friends", reading)
        for entry in friend.files:
            listed += [
                file if inner is None else f"{file}:{inner}" for file, inner in expand(entry, place)
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
    results = list(files)
    for number, friend in enumerate(friends):
        try:
            results = with_friend(results, friend, base, reading)
        except Unusable as error:
            problem = Problem(f"friends.{number}.files", error.text, error.near)
            raise config_error(Places(), [problem]) from None
    return results


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
            for file, inner in expand(entry, Place(base, where, reading or Reading())):
                data_file = DataFile(file, inner or bare(tree or ""))
                if _identity(data_file) in files:
                    repeated.append(file)
                files.setdefault(_identity(data_file), data_file)
        except Unusable as error:
            problems.append(Problem("", error.text, error.near))
    if problems:
        raise config_error(Places(where), problems)
    if repeated:
        _log.warning("%s name files twice, kept once: %s", where, _named(repeated))
    return list(files.values())


def _identity(of: DataFile) -> tuple[str, str]:
    return of.file if is_url(of.file) else os.path.realpath(of.file), of.tree


def _named(files: list[str]) -> str:
    more = len(files) - _MAX_NAMED
    return ", ".join(files[:_MAX_NAMED]) + (f" and {more} more" if more > 0 else "")
