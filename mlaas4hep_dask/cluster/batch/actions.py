"""What a supervisor may do, as values: submit or end a job, say something, give up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Submit:
    """Submit a job with a worker of a name."""

    group: str
    worker: str


@dataclass(frozen=True)
class Cancel:
    """End a job."""

    id: str
    worker: str


@dataclass(frozen=True)
class Gone:
    """Write down that a job that was ended has left the queue."""

    id: str
    worker: str


@dataclass(frozen=True)
class Tell:
    """Say something, of a job: with the end of its log, or the batch system's own explanation.

    It is explained why the job does not start, or why it has left the queue.
    ``state`` is the job's from now on: ``pending``, ``running``, ``suspended``, ``connected`` or
    ``lost``.
    """

    text: str
    id: str = ""
    worker: str = ""
    log: bool = False
    explain: Literal["", "start", "end"] = ""
    is_warning: bool = True
    state: str = ""


@dataclass(frozen=True)
class GiveUp:
    """End the run, for a reason."""

    reason: str


Action = Submit | Cancel | Gone | Tell | GiveUp
