"""Notes of one kind, which may be thousands, as a few lines."""

from __future__ import annotations

from collections.abc import Sequence

FEW = 3


def together(notes: Sequence[str]) -> list[str]:
    """The notes, or the first of many with their number."""
    if len(notes) <= FEW:
        return list(notes)
    return [f"{notes[0]}; likewise {len(notes) - 1:,} more"]
