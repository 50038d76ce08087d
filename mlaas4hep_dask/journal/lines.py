"""Files with one JSON object in each line, which somebody may be writing to."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


def lines_of(file: Path) -> Iterator[Mapping[str, Any]]:
    """The objects of a file with one in each line; a line that was cut is left out."""
    try:
        content = file.read_bytes()
    except OSError:
        return
    yield from (value for _, value in numbered(content) if value is not None)


def numbered(content: bytes) -> Iterator[tuple[int, Mapping[str, Any] | None]]:
    """The numbers of lines, from 1, and their objects; None for one that was cut or is none."""
    for number, line in enumerate(content.split(b"\n"), start=1):
        if not line:
            continue
        try:
            value = json.loads(line)
        except ValueError:  # bytes that are no UTF-8 too
            value = None
        yield number, value if isinstance(value, dict) else None
