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
    for line in content.split(b"\n"):
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            yield value
