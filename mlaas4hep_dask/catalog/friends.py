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
    parts = [parted(each) for each in files]
    trees = {inner or friend.tree or tree for _, inner in parts}
    if len(trees) > 1:
        raise Unusable(f"expected one tree in all files, found {', '.join(map(repr, trees))}")
    return FriendFiles(tuple(path for path, _ in parts), trees.pop(), by, friend.prefix)


def _mapped(files: Mapping[str, str], file: str) -> str:
    """The friend of a file, by the first pattern that matches."""
    for pattern, target in files.items():
        replicas = [_replaced(pattern, target, each) for each in file.split("|")]
        friends = [each for each in replicas if each is not None]
        if len(friends) == len(replicas):
            path, _ = parted(friends[0])
            if "://" not in path and not Path(path).is_file():
                near = nearest(Path(path).name, names_in(Path(path).parent))
                raise Unusable(f"no such file: {path}, which would be the friend of {file}", near)
            return "|".join(friends)
    patterns = ", ".join(map(repr, files))
    raise Unusable(f"no pattern of {patterns} matches {file}, which has no friend then")


def _replaced(pattern: str, target: str, file: str) -> str | None:
    name = file if "/" in pattern else file.rpartition("/")[2]
    match = re.fullmatch("(.*)".join(map(re.escape, pattern.split("*"))), name)
    if match is None:
        return None
    pieces = target.split("*")
    if len(pieces) - 1 > len(match.groups()):
        raise Unusable(f"{target!r} has more * than {pattern!r}")
    path = pieces[0]
    for text, piece in zip(match.groups(), pieces[1:], strict=False):
        path += text + piece
    path = os.path.expandvars(os.path.expanduser(path))  # noqa: PTH111
    if "://" in path or path.startswith("/"):
        return path
    folder = file.rpartition("/")[0]
    if "://" in file:
        return f"{folder}/{path}"
    return os.path.normpath(os.path.join(folder, path))  # noqa: PTH118
