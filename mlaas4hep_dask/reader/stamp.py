"""Stamps of files, by which a change is noticed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import fsspec
import xxhash

from mlaas4hep_dask.errors import UnreadableFileError
from mlaas4hep_dask.reader.access import XROOTD, Access, is_remote

# What servers say of a version of a file, the most telling first.
_VERSIONS = ("ETag", "etag", "md5Hash", "content_md5", "Last-Modified", "LastModified", "mtime")


def stamp_of(location: str, access: Access) -> str:
    """Size and time of change of a local file; size and version of a remote one.

    The version is the ETag or the time of change that the server tells, in one request. It stands
    after ``@``, with the place where it holds: a replica has another. None is there when a server
    sends its clients on to others, which may have copies of different times.

    Raises
    ------
    UnreadableFileError
        When a local file does not exist.
    """
    if is_remote(location):
        return _remote_stamp(location, access)
    try:
        status = Path(location).stat()
    except OSError as error:
        raise UnreadableFileError(
            f"{location} cannot be read ({error.strerror})",
            file=location,
            reason=str(error.strerror),
        ) from error
    return f"{status.st_size}-{status.st_mtime_ns}"


def with_content(stamp: str, content: str) -> str:
    """The stamp with something that was read of the file, equal for all of its copies."""
    identity, at, version = stamp.partition("@")
    return f"{identity}-{content}{at}{version}"


def is_same(planned: str, actual: str) -> bool:
    """True if nothing tells that a file has changed; versions at other places tell nothing."""
    identity, _, version = planned.partition("@")
    actual_identity, _, actual_version = actual.partition("@")
    is_comparable = version[:8] == actual_version[:8]
    return identity == actual_identity and (not is_comparable or version == actual_version)


def _remote_stamp(location: str, access: Access) -> str:
    url = location.replace("xroot://", "root://", 1)
    fs, path = fsspec.url_to_fs(url, **access.storage_options(location))
    info = fs.info(path)
    version = "" if _is_sent_on(url, info, access) else _version(info)
    if not version:
        return f"{info.get('size')}"
    place, version = (
        xxhash.xxh3_64_hexdigest(text)[:8] for text in (location.encode(), version.encode())
    )
    return f"{info.get('size')}@{place}{version}"


def _version(info: Mapping[str, Any]) -> str:
    return next((str(info[key]) for key in _VERSIONS if info.get(key)), "")


def _is_sent_on(url: str, info: Mapping[str, Any], access: Access) -> bool:
    """True unless the file's bytes come from the server that the URL names."""
    place = urlsplit(url)
    if place.scheme in XROOTD:
        return not _is_data_server(f"{place.scheme}://{place.netloc}", math.ceil(access.timeout))
    return urlsplit(info.get("url") or url).netloc != place.netloc


@cache
def _is_data_server(server: str, timeout: int) -> bool:
    from XRootD.client import FileSystem
    from XRootD.client.flags import QueryCode

    status, role = FileSystem(server).query(QueryCode.CONFIG, "role", timeout)
    return bool(status.ok) and role.strip(b"\0\n ") == b"server"
