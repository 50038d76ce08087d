"""Jobs that a batch system may have accepted without saying so: the queue shows them by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mlaas4hep_dask.cluster.batch.views import Seen


@dataclass(frozen=True)
class _Job:
    name: str
    words: str
    since: float


class Unanswered:
    """Keeps in mind what was submitted without an answer.

    Parameters
    ----------
    settle : float
        Seconds after which a job that the queue does not show counts as refused.
    """

    def __init__(self, settle: float) -> None:
        self._settle = settle
        self._jobs: dict[str, _Job] = {}
        self._refused: dict[str, _Job] = {}

    def __bool__(self) -> bool:
        return bool(self._jobs)

    @property
    def workers(self) -> list[str]:
        """The names of their workers."""
        return list(self._jobs)

    def add(self, worker: str, name: str, words: str, now: float) -> None:
        """Take the name of a job, and why there is no answer."""
        self._jobs[worker] = _Job(name, words, now)

    def found(self, queue: Mapping[str, Seen]) -> dict[str, str]:
        """Ids, by worker, of those that the queue shows; they are forgotten here."""
        return _taken(self._jobs, queue)

    def strays(self, queue: Mapping[str, Seen]) -> dict[str, str]:
        """Likewise of those that came after they had counted as refused."""
        return _taken(self._refused, queue)

    def refused(self, now: float) -> dict[str, str]:
        """By worker, the words of those that the queue has not shown in time."""
        late = {w: job for w, job in self._jobs.items() if now - job.since > self._settle}
        for worker, job in late.items():
            del self._jobs[worker]
            self._refused[worker] = job
        return {worker: job.words for worker, job in late.items()}


def _taken(jobs: dict[str, _Job], queue: Mapping[str, Seen]) -> dict[str, str]:
    names = {each.name: job for job, each in queue.items() if each.name}
    jobs_here = {worker: names[job.name] for worker, job in jobs.items() if job.name in names}
    for worker in jobs_here:
        del jobs[worker]
    return jobs_here
