"""What a supervisor sees, and what it keeps in mind, as values."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

QueueState = Literal["pending", "running", "suspended", "held", "gone"]


@dataclass(frozen=True)
class Seen:
    """What the queue says of a job, and why: it waits, is suspended or held, or has ended.

    One that was ended at its walltime has ``is_walltime``, one whose processes are being ended
    ``is_ending``.
    """

    state: QueueState
    reason: str = ""
    is_walltime: bool = False
    is_ending: bool = False
    name: str = field(default="", compare=False)

    def is_of(self, worker: str) -> bool:
        """Whether it may be a worker's; its id may be given again, after years or elsewhere."""
        return not self.name or worker in self.name


@dataclass(frozen=True)
class View:
    """What is seen at one time.

    Parameters
    ----------
    now : float
        Seconds of a clock that only goes forward.
    queue : mapping of str to Seen, or None
        By id. A job that is absent may have left. None when the batch system did not answer.
    workers : mapping of str to int, or None
        By job's name: how many of its workers Dask has. None when its scheduler did not answer.
    work : float
        What all workers have done; it never becomes less.
    backlog : mapping of str to int
        By group: the tasks that could run now.
    idle : frozenset of str
        Names of the workers that do nothing and hold nothing.
    submitted : mapping of str to str
        Ids of jobs that were submitted since the last step, by the name of the worker.
    refused : mapping of str to str
        Likewise what was said of those that were refused.
    put_off : frozenset of str
        Likewise the names of those that were not tried, after a refusal.
    strays : mapping of str to str
        Ids of jobs that came though they counted as refused, by the name of the worker.
    words : str
        What the batch system said when it did not answer.
    """

    now: float
    queue: Mapping[str, Seen] | None
    workers: Mapping[str, int] | None = field(default_factory=dict)
    work: float = 0.0
    backlog: Mapping[str, int] = field(default_factory=dict)
    idle: frozenset[str] = frozenset()
    submitted: Mapping[str, str] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    put_off: frozenset[str] = frozenset()
    strays: Mapping[str, str] = field(default_factory=dict)
    words: str = ""


@dataclass(frozen=True)
class Job:
    """A job that is not lost.

    Attributes
    ----------
    id : str
        Empty until the batch system has given one.
    since : float
        When it was submitted, put back into the queue or suspended.
    running_since, away_since : float or None
        When it was first seen to run; when its worker was first missed.
    idle_since : float or None
        From when on its worker has nothing to do.
    absent_since : float or None
        From when on the queue has not shown it.
    has_connected : bool
        Its worker was there at some time.
    is_suspended : bool
        Its processes are stopped.
    is_stale : bool
        It was put back into the queue, and Dask still has the worker of the start before.
    reason : str
        What it was last told to wait for, ``told`` at that time.
    """

    worker: str
    group: str
    since: float
    id: str = ""
    running_since: float | None = None
    away_since: float | None = None
    idle_since: float | None = None
    absent_since: float | None = None
    has_connected: bool = False
    is_suspended: bool = False
    is_stale: bool = False
    reason: str = ""
    told: float = -math.inf


@dataclass(frozen=True)
class Leaving:
    """A job that was ended, last at a time, and that the queue may still have."""

    id: str
    worker: str
    since: float


@dataclass(frozen=True)
class Refusals:
    """Of a group: how often jobs were refused, one after the other, and what was said last.

    Before a time no other job is submitted.
    """

    count: int = 0
    until: float = -math.inf
    words: str = ""


@dataclass(frozen=True)
class State:
    """All that a supervisor keeps in mind; begins empty.

    Attributes
    ----------
    jobs : tuple of Job
        Those that are not lost, in the order in which they were submitted.
    leaving : tuple of Leaving
        Those that were ended.
    number : int
        Jobs that were ever submitted.
    num_losses : int
        Without work done in between.
    refusals : mapping of str to Refusals
        By group.
    has_accepted : bool
        The batch system has accepted a job.
    work, last_work : float
        What was done at the last lost job, and when it was last looked.
    since : mapping of str to float
        By group that is missed: from when on, and nothing was done without it.
    ready : frozenset of str
        Groups of which the minimum was there once.
    silent_since, deaf_since : float or None
        From when on the batch system, or Dask's scheduler, has not answered.
    silent_told : float
        When it was last told that the batch system does not answer.
    words : str
        What it said instead.
    heard_since : float
        From when on the scheduler has answered.
    given_up : str
        Why; then nothing is done any more.
    """

    prefix: str = ""
    jobs: tuple[Job, ...] = ()
    leaving: tuple[Leaving, ...] = ()
    number: int = 0
    num_losses: int = 0
    refusals: Mapping[str, Refusals] = field(default_factory=dict)
    has_accepted: bool = False
    work: float = 0.0
    last_work: float = 0.0
    since: Mapping[str, float] = field(default_factory=dict)
    ready: frozenset[str] = frozenset()
    silent_since: float | None = None
    silent_told: float = -math.inf
    words: str = ""
    deaf_since: float | None = None
    heard_since: float = -math.inf
    given_up: str = ""


def jobs_of_run(queue: Mapping[str, Seen], prefix: str) -> dict[str, str]:
    """Workers, by id, of the jobs in a queue that have a run's prefix in their names."""
    if not prefix:
        return {}
    worker = re.compile(rf"(?:^|-)([a-z]+-{re.escape(prefix)}\d+)$")
    return {
        job: match[1]
        for job, status in queue.items()
        if status.state != "gone" and not status.is_ending and (match := worker.search(status.name))
    }
