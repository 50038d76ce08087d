"""How many workers a supervisor keeps, and how long it waits for what."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Size:
    """How many workers a group has: at least, and at most."""

    minimum: int
    maximum: int

    def jobs(self, backlog: int, processes: int) -> int:
        """Jobs of so many workers each that a backlog of tasks wants."""
        least = math.ceil(self.minimum / processes)
        most = max(least, self.maximum // processes)
        return max(least, min(most, math.ceil(backlog / processes)))


@dataclass(frozen=True)
class Limits:
    """Bounds of a supervisor; all times in seconds.

    Parameters
    ----------
    sizes : mapping of str to Size
        By group.
    processes : mapping of str to int
        By group: workers of a job; 1 where nothing is said.
    patience : float
        In which the minimum has to come, and any worker later. While others work it does not pass.
    connect : float
        In which a job that runs has to have its worker connected.
    away : float
        In which a worker that left may be back while its job still runs.
    absent : float
        For which the queue may not show a job that has no worker yet: an answer may be short.
    word : float
        After which it is told that a job is pending.
    next_word : float
        After which it is told again.
    max_losses : int
        Losses without work done in between. Jobs that had connected and are lost in one step are
        one loss, and so are any in a step before which work was done.
    max_refusals, max_later_refusals : int
        Refusals one after the other when there is neither a job nor a worker: before any job was
        accepted, and later.
    pause, max_pause : float
        After a refusal, until the next job is submitted; twice as long after each that follows.
    settle : float
        After which a job that may have been accepted, and that the queue does not show, was not.
    again : float
        After which a job that was ended, and is still in the queue, is ended again.
    idle : float
        For which a worker may have nothing to do before its job is ended, beyond the minimum.
    lifetimes : mapping of str to float
        By group: after which a worker may end by itself, and its job with it, before the batch
        system ends it. Such a job is not lost.
    connects : mapping of str to float
        By group: what holds there instead of ``connect``.
    """

    sizes: Mapping[str, Size]
    processes: Mapping[str, int] = field(default_factory=dict)
    patience: float = 4 * 3600.0
    connect: float = 300.0
    away: float = 60.0
    absent: float = 2.0
    word: float = 15.0
    next_word: float = 600.0
    max_losses: int = 20
    max_refusals: int = 3
    max_later_refusals: int = 10
    pause: float = 5.0
    max_pause: float = 600.0
    settle: float = 60.0
    again: float = 30.0
    idle: float = 300.0
    lifetimes: Mapping[str, float] = field(default_factory=dict)
    connects: Mapping[str, float] = field(default_factory=dict)
