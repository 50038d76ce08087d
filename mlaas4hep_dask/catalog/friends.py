"""The friend trees of a file: which files and trees they are."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from mlaas4hep_dask.catalog.locations import FriendFiles, Unusable, parted
from mlaas4hep_dask.config import Friend
from mlaas4hep_dask.errors import names_in, nearest


def friend_of(
    friend: Friend, file: str, tree: str, listed: Sequence[str], place: int
) -> FriendFiles:
    """The friend of a file.

    Parameters
    ----------
    friend
        What the configuration says of it.
    file, tree
        The file whose friend it is, and the tree in it.
    listed
        The files that ``friend.files`` lists.
    place
        Of the file, among those of its sample.

    Raises
    ------
    Unusable
        When it has none.
    """
    by = tuple(friend.by)
    if friend.files is None:
        if friend.tree in (None, tree) and not by:
            raise Unusable(f"expected files, or another tree: {tree!r} is no friend of itself")
        files = [file]
    elif isinstance(friend.files, dict):
        files = [_mapped(friend.files, file)]
    elif by:
        files = list(listed)
    else:
        files = [listed[place]]
    found = [parted(each) for each in files]
    trees = {own or friend.tree or tree for _, own in found}
    if len(trees) > 1:
        raise Unusable(f"expected one tree in all files, found {', '.join(map(repr, trees))}")
    return FriendFiles(tuple(each for each, _ in found), trees.pop(), by, friend.prefix)


def _mapped(files: Mapping[str, str], file: str) -> str:
    """The friend of a file, by the first pattern that matches."""
    for pattern, target in files.items():
        replicas = [_replaced(pattern, target, each) for each in file.split("|")]
        found = [each for each in replicas if each is not None]
        if len(found) == len(replicas):
            path, _ = parted(found[0])
            if "://" not in path and not Path(path).is_file():
                near = nearest(Path(path).name, names_in(Path(path).parent))
                raise Unusable(f"no such file: {path}, which would be the friend of {file}", near)
            return "|".join(found)
    known = ", ".join(map(repr, files))
    raise Unusable(f"no pattern of {known} matches {file}, which has no friend then")


def _replaced(pattern: str, target: str, file: str) -> str | None:
    name = file if "/" in pattern else file.rpartition("/")[2]
    found = re.fullmatch("(.*)".join(map(re.escape, pattern.split("*"))), name)
    if found is None:
        return None
    pieces = target.split("*")
    if len(pieces) - 1 > len(found.groups()):
        raise Unusable(f"{target!r} has more * than {pattern!r}")
    made = pieces[0]
    for text, piece in zip(found.groups(), pieces[1:], strict=False):
        made += text + piece
    made = os.path.expandvars(os.path.expanduser(made))  # noqa: PTH111
    if "://" in made or made.startswith("/"):
        return made
    folder = file.rpartition("/")[0]
    if "://" in file:
        return f"{folder}/{made}"
    return os.path.normpath(os.path.join(folder, made))  # noqa: PTH118
