"""Friend trees: more branches of the same events, in other files or trees."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema

from mlaas4hep_dask.config.fields import Text, Tree, as_list
from mlaas4hep_dask.config.locations import FriendFiles, Unusable, parted
from mlaas4hep_dask.config.problems import Problem, describe, invalid
from mlaas4hep_dask.config.section import Section
from mlaas4hep_dask.errors import nearest

_LIST = {"type": "array", "items": {"type": "string", "minLength": 1}}
_FILES_SCHEMA = {
    "anyOf": [
        {"type": "string", "minLength": 1},
        _LIST,
        {"type": "object", "additionalProperties": {"type": "string", "minLength": 1}},
        {"type": "null"},
    ],
    "examples": [{"*.root": "friends/*_dnn.root"}, ["dnn_1.root", "dnn_2.root"]],
}
_BY_SCHEMA = {
    "anyOf": [{"const": "entry"}, {"type": "string", "minLength": 1}, _LIST],
    "examples": ["entry", ["run", "luminosityBlock", "event"]],
}


def _as_files(value: Any) -> Any:
    found = value if value is None or isinstance(value, dict) else as_list(value)
    values = [*found, *found.values()] if isinstance(found, dict) else found or []
    is_text = isinstance(values, list) and all(isinstance(v, str) and v for v in values)
    if found in ([], {}) or not isinstance(found, list | dict | None) or not is_text:
        text = "expected files, or a mapping from patterns of files to those of their friends"
        raise invalid(Problem("", f"{text}, found {describe(value)}"))
    return found


def _as_names(value: Any) -> Any:
    return [] if value == "entry" else as_list(value)


class Friend(Section):
    """A tree with more branches of the events of the files."""

    tree: Tree | None = Field(
        default=None,
        description="Name of the friend tree. null means that of the file whose friend it is.",
    )
    files: Annotated[
        list[Text] | dict[Text, Text] | None,
        BeforeValidator(_as_files),
        WithJsonSchema(_FILES_SCHEMA, mode="validation"),
    ] = Field(
        default=None,
        description="Where it is: a mapping from a pattern of files with * to the friend of each, "
        "from its folder; or files, under samples[].friends one for each file of the sample. null "
        "means the same file.",
    )
    by: Annotated[
        list[Text],
        BeforeValidator(_as_names),
        WithJsonSchema(_BY_SCHEMA, mode="validation"),
    ] = Field(
        default=[],
        description="Branches that both trees have and that identify an event, such as run and "
        "event. entry, the default, joins entry by entry.",
    )
    prefix: str = Field(
        default="", description="Text in front of the names of its branches, such as 'dnn.'."
    )


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
                near = nearest(Path(path).name, _names_in(Path(path).parent))
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


def _names_in(folder: Path) -> list[str]:
    try:
        return [path.name for path in folder.iterdir()]
    except OSError:
        return []
