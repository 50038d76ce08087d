"""Files that code names: which they are, and the digests of what they hold."""

from __future__ import annotations

import glob
import hashlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LARGE = 64 * 2**20  # bytes of a file, beyond which its size and time stand for its content
SMALL = 2**20  # the same for one of many files that a pattern matches
MANY = 1_000  # files that a pattern matches, beyond which the same holds for small ones
MAX_NAME = 255


def named(folder: Path, name: str) -> list[Path]:
    """The file of a name, if there is one."""
    path = folder / name
    try:
        return [path] if path.is_file() else []
    except (OSError, ValueError):
        return []


def matching(folder: Path, pattern: str) -> list[Path]:
    """The files that match a pattern, in alphabetical order."""
    try:
        found = glob.iglob(  # noqa: PTH207  # Path.glob takes no absolute pattern
            pattern.replace("[", "[[]"), root_dir=folder, recursive=True
        )
        return [path for name in sorted(found) if (path := folder / name).is_file()]
    except (OSError, ValueError):
        return []


def source_in(path: Path) -> str:
    """The text of a Python file; empty if it cannot be read."""
    try:
        return importlib.util.decode_source(path.read_bytes())
    except (OSError, UnicodeDecodeError, SyntaxError):
        return ""


def is_name(text: str) -> bool:
    """True for what may be the name of a file."""
    return 0 < len(text) <= MAX_NAME and text.isprintable() and text.strip("./") != ""


def texts_in(value: Any) -> list[str]:
    """All texts in a JSON value."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        return [text for each in value.values() for text in texts_in(each)]
    if isinstance(value, list | tuple):
        return [text for each in value for text in texts_in(each)]
    return []


def digest(content: bytes) -> str:
    """The sha256, in hex."""
    return hashlib.sha256(content).hexdigest()


def digest_of_file(path: Path, *, large: int = LARGE) -> str:
    """Of its content; of size and time if it is large."""
    try:
        status = path.stat()
        if status.st_size > large:
            return f"{status.st_size}-{status.st_mtime_ns}"
        return digest(path.read_bytes())
    except OSError as error:
        return str(error.strerror)
