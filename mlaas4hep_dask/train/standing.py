"""Where a rank stands that does not get on: seen from outside of the thread that it trains in."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

from mlaas4hep_dask.usercode.load import PREFIX

LOOK_EVERY = 10.0  # seconds between looks at a rank
QUIET = 30.0  # seconds without getting on, after which it is told

RANKS, ROWS, WORK = "ranks", "rows", "work"  # what a rank waits for, or its own work
OUR = "mlaas4hep_dask.train."
BACKWARD = ("torch.autograd.graph", "_engine_run_backward")
SEEN = (f"{OUR}learner", "_seen")  # which waits on a GPU alone
WAITS = {  # by module and function: what is waited for there, and in words
    (f"{OUR}exchange", "_wait"): (RANKS, "the exchange of gradients"),
    (f"{OUR}meeting", "_wait"): (RANKS, "the meeting of all ranks"),
    (f"{OUR}feed", "windows"): (ROWS, "the next window"),
    BACKWARD: (RANKS, "a backward pass, in which gradients are exchanged"),
    SEEN: (RANKS, "the loss of a step on a GPU, in which gradients are exchanged"),
}


class Pulse:
    """How a rank gets on, piece by piece, and how long it takes for an event at the slowest.

    Attributes
    ----------
    began : float
        When the piece at hand began, by the clock of `time.monotonic`.
    num_rows : int
        Events of the piece at hand; 0 of what is not done event by event.
    """

    def __init__(self) -> None:
        self.began, self.num_rows = time.monotonic(), 0
        self._slowest: float | None = None  # seconds for an event

    def beat(self, num_rows: int = 0) -> None:
        """Begin another piece, of some events."""
        now = time.monotonic()
        if self.num_rows:
            seconds = (now - self.began) / self.num_rows
            # The first takes longer: much is compiled then.
            self._slowest = 0.0 if self._slowest is None else max(self._slowest, seconds)
        self.began, self.num_rows = now, num_rows

    @property
    def slowest(self) -> float:
        """Seconds that the piece at hand would take if it were as slow as the slowest before."""
        return (self._slowest or 0.0) * self.num_rows


def standing(frame: FrameType | None, *, by_torch: bool) -> tuple[str, str]:
    """What a thread waits for, and where it is, in words; of its frames the innermost tells.

    Parameters
    ----------
    frame : frame
        The innermost.
    by_torch : bool
        Gradients are exchanged within torch, so that a backward pass may be a wait.

    Returns
    -------
    tuple of (str, str)
        ``ranks``, ``rows`` of the feed or its own ``work``; the innermost place in the user's own
        code, or else in ours what is waited for, or the innermost of all.
    """
    waits_for, words, innermost = "", "", ""
    while frame is not None:
        name, function = str(frame.f_globals.get("__name__", "")), frame.f_code.co_name
        file = Path(frame.f_globals.get("__file__") or frame.f_code.co_filename)
        place = f"line {frame.f_lineno} of {file.name}"
        innermost = innermost or place
        if name.startswith(PREFIX):
            return waits_for or WORK, place
        if not waits_for and name.startswith("torch.distributed."):
            waits_for, words = RANKS, "a sum over all ranks"
        elif not waits_for and (by_torch or (name, function) not in (BACKWARD, SEEN)):
            waits_for, words = WAITS.get((name, function), ("", ""))
        frame = frame.f_back
    return waits_for or WORK, words or innermost


def look_at(
    thread: int, pulse: Pulse, *, by_torch: bool, quiet: float = QUIET
) -> dict[str, Any] | None:
    """Where a rank stands that has stood there for a while, as plain values; None of others.

    Parameters
    ----------
    thread : int
        The thread that it trains in.
    pulse : Pulse
        Of the rank.
    by_torch : bool
        As of `standing`.
    quiet : float
        Seconds of that while.

    Returns
    -------
    dict or None
        Its process, what it waits for and its place, see `standing`; for how many seconds, and how
        many of these would be as slow as the slowest that it has done before.
    """
    seconds = time.monotonic() - pulse.began
    if seconds < quiet:
        return None
    waits_for, place = standing(sys._current_frames().get(thread), by_torch=by_torch)
    return {
        "pid": os.getpid(),
        "waits_for": waits_for,
        "place": place,
        "seconds": seconds,
        "slowest": pulse.slowest,
    }
