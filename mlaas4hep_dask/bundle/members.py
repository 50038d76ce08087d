"""Files of a bundle's folder, which may be anybody's: plain ones, and of bounded size."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import re
import stat
from pathlib import Path
from typing import Any

from mlaas4hep_dask.errors import BundleError

MEMBER = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")
MAX_MEMBERS = 64
MAX_BYTES = 4 * 1024**3  # of all files together
MAX_TEXT = 256 * 1024**2  # of one that is read as a whole
MAX_DEPTH = 64  # of a JSON document
_SURROGATE = re.compile(r"[\ud800-\udfff]")


def open_member(folder: Path, member: str) -> io.BufferedReader:
    """A file of a bundle, opened to be read; neither a link nor a device is one.

    Raises
    ------
    BundleError
        When there is no such file.
    """
    try:
        # A pipe that nobody writes to would otherwise be waited for.
        place = os.open(folder / member, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise _missing(folder, member) from error
    if not stat.S_ISREG(os.fstat(place).st_mode):
        os.close(place)
        raise _missing(folder, member)
    return os.fdopen(place, "rb")


def read_member(folder: Path, member: str, *, most: int = MAX_TEXT) -> bytes:
    """The content of a file of a bundle.

    Raises
    ------
    BundleError
        When there is no such file, or it has more than ``most`` bytes.
    """
    with open_member(folder, member) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise BundleError.at(folder, f"{member} has more than {most:,} bytes", member=member)
    return content


def require_unaltered(folder: Path, files: Any) -> None:
    """Compare files with the sizes and checksums that a manifest has of them.

    Raises
    ------
    BundleError
        When one is missing or altered, when the manifest has none of it, or when they are too
        many or too large.
    """
    if len(files) > MAX_MEMBERS:
        raise BundleError.at(folder, f"more than {MAX_MEMBERS} files")
    budget = MAX_BYTES
    for member, recorded in files.items():
        if not MEMBER.fullmatch(member):
            raise BundleError.at(folder, f"{member[:100]!r} is not a file name", member=member)
        with open_member(folder, member) as file:
            size = os.fstat(file.fileno()).st_size
            budget -= size
            if budget < 0:
                raise BundleError.at(
                    folder, f"more than {MAX_BYTES:,} bytes with {member}", member=member
                )
            expected = recorded.get("bytes", size) if isinstance(recorded, dict) else None
            if size != expected:
                raise _altered(folder, member, f"{size} bytes, expected {str(expected)[:100]}")
            actual = hashlib.file_digest(file, "sha256").hexdigest()
            digest = recorded.get("sha256")
            if actual != digest:
                raise _altered(folder, member, f"sha256 {actual}, expected {str(digest)[:100]}")


def strict_json(content: bytes) -> Any:
    """The document in JSON that everybody reads the same way.

    Raises
    ------
    ValueError
        When it is not UTF-8 or not JSON; when a number is NaN, infinite, or an integer of more
        than 64 bits; when a name stands twice in an object, a string is no Unicode, or values
        are nested too deeply.
    """
    try:
        mapping = json.loads(
            content.decode(),
            parse_constant=_no_number,
            parse_float=_finite,
            parse_int=_integer,
            object_pairs_hook=_without_twins,
        )
    except RecursionError:
        raise ValueError(f"nested deeper than {MAX_DEPTH}") from None
    level, depth = [mapping], 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise ValueError(f"nested deeper than {MAX_DEPTH}")
        level = [
            each
            for one in level
            if isinstance(one, dict | list)
            for each in (one.values() if isinstance(one, dict) else one)
            if isinstance(each, dict | list | str)
        ]
        if any(isinstance(each, str) and _SURROGATE.search(each) for each in level):
            raise ValueError("a string is no Unicode: half of a surrogate pair")
    return mapping


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:100]} is too large")
    return value


def _integer(text: str) -> int:
    value = int(text) if len(text) <= 20 else 2**64
    if not -(2**63) <= value < 2**64:
        raise ValueError(f"{text[:100]} has more than 64 bits")
    return value


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) != len(pairs):
        names = [name for name, _ in pairs]
        twin = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the name {twin[:100]!r} stands twice in an object")
    if any(_SURROGATE.search(name) for name in mapping):
        raise ValueError("a name is no Unicode: half of a surrogate pair")
    return mapping


def _missing(folder: Path, member: str) -> BundleError:
    return BundleError.at(folder, f"{member} is missing, or is not a plain file", member=member)


def _altered(folder: Path, member: str, how: str) -> BundleError:
    return BundleError.at(folder, f"{member} was altered: {how}", member=member)
