"""Entries that name files elsewhere: URLs, logical names, file sets of coffea."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, NamedTuple

from mlaas4hep_dask.config.fields import bare
from mlaas4hep_dask.errors import nearest

# Those of fsspec that name a file on some server, by its documentation.
_SCHEMES = (
    *("root", "xroot", "http", "https", "s3", "s3a", "gs", "gcs", "abfs", "az", "hdfs", "webhdfs"),
    *("ftp", "sftp", "ssh", "smb", "webdav", "hf", "oci", "oss", "memory"),
)
# Of XRootD's client, which without these waits minutes for a server that is gone.
XROOTD_LIMITS = {
    "XRD_CONNECTIONWINDOW": "10",
    "XRD_CONNECTIONRETRY": "2",
    "XRD_STREAMERRORWINDOW": "10",
}


class Unusable(Exception):  # noqa: N818  # becomes a Problem once its key is known
    """An entry of ``files`` names no file; what to do about it is in ``near``."""

    def __init__(self, text: str, near: str | None = None) -> None:
        super().__init__(text, near)
        self.text = text
        self.near = near


class FriendFiles(NamedTuple):
    """The friend of one file.

    Parameters
    ----------
    files : tuple of str
        Paths and URLs; one, unless events are found by identifiers.
    tree : str
        Name of the tree in all of them.
    by : tuple of str
        Branches that identify an event; empty to join by entry.
    prefix : str
        Stands in front of the names of its branches.
    """

    files: tuple[str, ...]
    tree: str
    by: tuple[str, ...]
    prefix: str


class DataFile(NamedTuple):
    """A file of a sample, and the tree in it.

    Parameters
    ----------
    file : str
        Absolute path or URL.
    tree : str
        Name of the TTree or RNTuple, without a slash in front; tables have none.
    key : str
        Where the tree is named, such as ``samples.0.tree``; for errors.
    friends : tuple of FriendFiles
        Where more branches of its events are.
    """

    file: str
    tree: str
    key: str = "tree"
    friends: tuple[FriendFiles, ...] = ()


_WITH_TREE = re.compile(
    r"(?P<file>(?:[a-z][a-z0-9+.-]*://[^/]+/)?(?!.*://).*\.root):(?P<tree>.*)", re.I
)


def parted(entry: str) -> tuple[str, str | None]:
    """The file and the tree of ``file.root:dir/tree``; no tree where none is named.

    The tree may stand behind a pattern and a URL, as in uproot. It begins after the last
    ``.root:`` of the path.
    """
    match = _WITH_TREE.fullmatch(entry)
    if match is None:
        return entry, None
    tree = bare(match["tree"])
    if not tree:
        raise Unusable(f"expected the name of a tree behind the colon of {entry!r}")
    return match["file"], tree


class Recorded(NamedTuple):
    """What a file set says of a file; None where it says nothing."""

    uuid: str | None
    num_entries: int | None


def checked_url(entry: str) -> str:
    """The URL, or URLs of replicas joined by ``|``, of schemes that fsspec knows."""
    for url in re.split(r"\|", entry):
        scheme, _, rest = url.partition("://")
        if not rest:
            raise Unusable(f"expected a host and a path, found {url!r}")
        if scheme in ("roots", "xroots"):
            text = f"{scheme}:// is not read; client and server agree on TLS by themselves"
            raise Unusable(text, f"root://{rest}")
        if scheme not in _SCHEMES:
            installed = {point.name for point in entry_points(group="fsspec.specs")}
            if scheme in installed:
                continue
            near = nearest(scheme, _SCHEMES)
            text = f"unknown scheme {scheme + '://'!r}; expected a path, root://, http(s)://, s3://"
            text += ", or another that fsspec reads"
            raise Unusable(text, f"{near}://" if near else None)
        if not rest.strip("/"):
            raise Unusable(f"expected a host and a path, found {url!r}")
    return entry


def logical_url(entry: str, redirector: str | None) -> str:
    """The URL of a logical file name."""
    if redirector is None:
        raise Unusable(f"the logical file name {entry!r} needs reading.redirector")
    path = entry.removeprefix("lfn:").lstrip("/")
    is_xrootd = redirector.startswith(("root://", "xroot://"))
    return f"{redirector}{'/' if is_xrootd else ''}{path}"


def fileset_files(
    path: Path, dataset: str | None, sample: str, tree: str | None
) -> Iterator[tuple[str, Recorded]]:
    """Files of one data set of a file set, in the JSON form that coffea reads and writes.

    The data set is the one named after ``#``, or the one called like the sample, or the only one.
    """
    try:
        content = path.read_bytes()
        fileset = json.loads(gzip.decompress(content) if path.suffix == ".gz" else content)
    except (OSError, ValueError, EOFError) as error:
        text = f"the file set {str(path)!r} cannot be read ({error}); JSON lines end in .jsonl"
        raise Unusable(text) from None
    if not isinstance(fileset, dict) or not fileset:
        raise Unusable(f"the file set {str(path)!r} is no mapping of data sets to files")
    if dataset is None:
        dataset = sample if sample in fileset or len(fileset) > 1 else next(iter(fileset))
    if dataset not in fileset:
        near = nearest(dataset, fileset)
        text = f"the file set {path.name!r} has no data set {dataset!r}; choose one with '#'"
        raise Unusable(text, f"{path.name}#{near or next(iter(fileset))}")
    files = fileset[dataset]
    files = files.get("files", files) if isinstance(files, dict) else files
    if isinstance(files, list):
        files = dict.fromkeys(files)
    if not isinstance(files, dict) or not files:
        raise Unusable(f"data set {dataset!r} of {path.name!r} names no file")
    for file, facts in files.items():
        if not isinstance(file, str):
            raise Unusable(f"data set {dataset!r} of {path.name!r} names {file!r}, expected a path")
        facts = facts if isinstance(facts, dict) else {"object_path": facts}
        _require_whole(file, facts, tree)
        yield file, Recorded(facts.get("uuid"), facts.get("num_entries"))


def _require_whole(file: str, facts: Mapping[str, Any], tree: str | None) -> None:
    path = facts.get("object_path")
    if isinstance(path, str) and tree is not None and bare(path) != tree:
        raise Unusable(f"{file} has the tree {path!r}, but the key 'tree' says {tree!r}", path)
    steps, num_entries = facts.get("steps"), facts.get("num_entries")
    if not steps:
        return
    try:
        ends = [0, *(stop for _, stop in sorted(steps))]
        is_gapless = ends[:-1] == [start for start, _ in sorted(steps)]
    except (TypeError, ValueError):
        raise Unusable(f"the steps of {file} are no list of [start, stop]") from None
    if is_gapless and ends[-1] == num_entries:
        return
    text = f"the steps of {file} have gaps or overlap"
    if is_gapless:
        text = f"the steps of {file} cover {ends[-1]} of {num_entries} entries"
    if num_entries is None:
        text = f"{file} has steps and no num_entries, by which to tell that they cover it"
    raise Unusable(f"{text}; files are read as a whole: leave the steps out")
