"""How many workers a supervisor keeps, and how long it waits for what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Size:
    """How many workers a group has: at least, and at most."""

    minimum: int
    maximum: int


@dataclass(frozen=True)
class Limits:
    """Bounds of a supervisor; all times in seconds.

    Parameters
    ----------
    sizes : mapping of str to Size
        By group.
    patience : float
        In which the minimum has to come, and any worker later.
    connect : float
        In which a job that runs has to have its worker connected.
    away : float
        In which a worker that left may be back while its job still runs.
    word : float
        After which it is told that a job is pending.
    next_word : float
        After which it is told again.
    max_losses : int
        Losses without work done in between.
    max_refusals : int
        Jobs refused one after the other.
    pause : float
        After a refusal, until the next job is submitted.
    idle : float
        For which a worker may have nothing to do before its job is ended, beyond the minimum.
    lifetimes : mapping of str to float
        By group: after which a worker may end by itself, and its job with it, before the batch
        system ends it. That is no loss.
    """

    sizes: Mapping[str, Size]
    patience: float = 4 * 3600.0
    connect: float = 300.0
    away: float = 60.0
    word: float = 15.0
    next_word: float = 600.0
    max_losses: int = 20
    max_refusals: int = 3
    pause: float = 5.0
    idle: float = 300.0
    lifetimes: Mapping[str, float] = field(default_factory=dict)
