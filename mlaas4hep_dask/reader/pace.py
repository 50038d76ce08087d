"""The pace of reading: pauses, pieces, and how long what was learned of a server holds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Pace:
    """How reading goes on, whatever the configuration says.

    Parameters
    ----------
    pause : float
        Seconds between the first two attempts; doubled after each.
    fresh : float
        Seconds after which a server is asked again whether an open file has changed.
    text_bytes : int
        Bytes of one piece of a text; partitions can begin once in a piece.
    answer_bytes : int
        Bytes that a server must send in time.
    """

    pause: float = 0.5
    fresh: float = 60.0
    text_bytes: int = 2**20
    answer_bytes: int = 8 * 2**20


PACE = Pace()
