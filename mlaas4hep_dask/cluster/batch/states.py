"""What a supervisor does next: the queue's view of jobs and Dask's of workers become actions.

Nothing here waits, asks or acts. A job is one worker process; the worker's name tells them apart.

1. A job is *submitted*; the batch system gives it an id, or refuses it.
2. It is *pending* until the batch system starts it, *running* then, and *connected* once Dask has
   its worker.
3. It is *lost* when it left the queue, is held, runs without connecting, or its worker stays away.
   Every loss is told and, if workers are still wanted, another job is submitted in the same step.
4. Losses without work done in between are counted; too many end the run, as do too many refusals
   and a minimum of workers that does not come in time.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from mlaas4hep_dask.cluster.batch.actions import Action, Cancel, GiveUp, Submit, Tell
from mlaas4hep_dask.cluster.batch.limits import Limits

QueueState = Literal["pending", "running", "held", "gone"]


@dataclass(frozen=True)
class Seen:
    """What the queue says of a job, and why: it waits, is held, or has ended.

    One that was ended at its walltime has ``is_walltime``.
    """

    state: QueueState
    reason: str = ""
    is_walltime: bool = False


@dataclass(frozen=True)
class View:
    """What is seen at one time.

    Parameters
    ----------
    now : float
        Seconds of a clock that only goes forward.
    queue : mapping of str to Seen, or None
        By id. Jobs that are absent have left. None when the batch system did not answer.
    workers : frozenset of str
        Names of the workers that Dask has.
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
    """

    now: float
    queue: Mapping[str, Seen] | None
    workers: frozenset[str] = frozenset()
    work: float = 0.0
    backlog: Mapping[str, int] = field(default_factory=dict)
    idle: frozenset[str] = frozenset()
    submitted: Mapping[str, str] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """A job that is not lost.

    Attributes
    ----------
    id : str
        Empty until the batch system has given one.
    since : float
        When it was submitted.
    running_since, away_since : float or None
        When it was first seen to run; when its worker was first missed.
    idle_since : float or None
        From when on its worker has nothing to do.
    has_connected : bool
        Its worker was there at some time.
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
    has_connected: bool = False
    reason: str = ""
    told: float = -math.inf


@dataclass(frozen=True)
class State:
    """All that a supervisor keeps in mind; begins empty.

    Attributes
    ----------
    jobs : tuple of Job
        Those that are not lost, in the order in which they were submitted.
    number : int
        Jobs that were ever submitted.
    losses, refusals : int
        Without work done, and without a job accepted, in between.
    work : float
        What was done at the last loss.
    since : float or None
        From when on workers are missed: the beginning, or when the last one left.
    is_ready : bool
        The minimum of every group was there once.
    given_up : str
        Why; then nothing is done any more.
    """

    prefix: str = ""
    jobs: tuple[Job, ...] = ()
    number: int = 0
    losses: int = 0
    refusals: int = 0
    work: float = 0.0
    since: float | None = None
    is_ready: bool = False
    no_submit_before: float = -math.inf
    silent_since: float | None = None
    given_up: str = ""


def step(state: State, view: View, limits: Limits) -> tuple[State, tuple[Action, ...]]:
    """The next state, and what is to be done; pure."""
    if state.given_up:
        return state, ()
    machine = _Step(state, view, limits)
    return machine.done()


def finish(state: State) -> tuple[Action, ...]:
    """What ends all jobs."""
    return tuple(Cancel(job.id, job.worker) for job in state.jobs if job.id)


def present(state: State, group: str, workers: Iterable[str]) -> int:
    """Workers of a group that are there."""
    names = set(workers)
    return sum(job.group == group and job.worker in names for job in state.jobs)


class _Step:
    def __init__(self, state: State, view: View, limits: Limits) -> None:
        self.state = state
        self.view = view
        self.limits = limits
        self.actions: list[Action] = []

    def done(self) -> tuple[State, tuple[Action, ...]]:
        self._take_answers()
        jobs = [kept_job for job in self.state.jobs if (kept_job := self._look(job)) is not None]
        self.state = replace(self.state, jobs=tuple(jobs))
        self._look_at_silence()
        self._look_at_patience()
        if self.state.losses > self.limits.max_losses:
            count = f"{self.state.losses} jobs were lost without work done in between"
            self._give_up(f"{count}; the last reasons stand above, and in the log of each job")
        if self.state.refusals >= self.limits.max_refusals:
            words = list(self.view.refused.values())[-1:] or [""]
            times = f"{self.state.refusals} times one after the other"
            self._give_up(f"the batch system refused jobs {times}: {words[0]}")
        if not self.state.given_up:
            self._resize()
        return self.state, tuple(self.actions)

    def _take_answers(self) -> None:
        jobs: list[Job] = []
        for job in self.state.jobs:
            if job.worker in self.view.refused:
                words = self.view.refused[job.worker]
                self.actions.append(Tell(f"the batch system refused a job of {job.group}: {words}"))
                self.state = replace(
                    self.state,
                    refusals=self.state.refusals + 1,
                    no_submit_before=self.view.now + self.limits.pause,
                )
            elif job.worker in self.view.submitted:
                self.state = replace(self.state, refusals=0)
                jobs.append(replace(job, id=self.view.submitted[job.worker]))
            else:
                jobs.append(job)
        self.state = replace(self.state, jobs=tuple(jobs))

    def _look(self, job: Job) -> Job | None:
        """The job as it is now; None when it is lost."""
        now, is_here = self.view.now, job.worker in self.view.workers
        if is_here:
            if not job.has_connected:
                self._note(job, "has connected", "connected")
            idle_since = job.idle_since if job.idle_since is not None else now
            is_idle = job.worker in self.view.idle
            job = replace(
                job,
                has_connected=True,
                away_since=None,
                idle_since=idle_since if is_idle else None,
            )
        elif job.has_connected and job.away_since is None:
            job = replace(job, away_since=now)
        if not job.id or self.view.queue is None:
            return job
        status = self.view.queue.get(job.id, Seen("gone"))
        if status.state == "gone":
            self._lose(job, status, f"left the queue{_because(status.reason)}")
            return None
        if status.state == "held":
            self._lose(job, status, f"is held{_because(status.reason)}", cancel=True)
            return None
        if status.state == "pending":
            if job.running_since is not None:  # the batch system starts it again
                job = replace(
                    job,
                    since=now,
                    running_since=None,
                    away_since=None,
                    has_connected=False,
                )
            return self._look_at_pending(job, status)
        if job.running_since is None:
            job = replace(job, running_since=now)
            self._note(job, "runs", "connected" if job.has_connected else "running")
        assert job.running_since is not None
        if not job.has_connected and now - job.running_since > self.limits.connect:
            what = f"has run for {now - job.running_since:.0f} s, and its worker has not connected"
            self._lose(job, status, what, cancel=True)
            return None
        if job.away_since is not None and now - job.away_since > self.limits.away:
            what = f"runs, but its worker has been away for {now - job.away_since:.0f} s"
            self._lose(job, status, what, cancel=True)
            return None
        return job

    def _note(self, job: Job, what: str, state: str) -> None:
        text = f"{_name(job)} {what}"
        self.actions.append(Tell(text, job.id, job.worker, is_warning=False, state=state))

    def _look_at_pending(self, job: Job, status: Seen) -> Job:
        now = self.view.now
        is_news = status.reason != job.reason and now - job.told >= self.limits.word
        is_due = now - job.since >= self.limits.word and (
            is_news or now - job.told >= self.limits.next_word
        )
        if not is_due:
            return job
        waited = f"has been pending for {now - job.since:.0f} s{_because(status.reason)}"
        # Many wait for the same: it is said of the first of them alone.
        others = [each for each in self.state.jobs if each.told == now and each.id != job.id]
        if not any(_same(action, status.reason) for action in self.actions) and not others:
            text = f"{_name(job)} {waited}"
            self.actions.append(Tell(text, job.id, job.worker, explain=True, state="pending"))
        return replace(job, reason=status.reason, told=now)

    def _is_at_its_end(self, job: Job, status: Seen) -> bool:
        """True when a worker that had done its time ended, or the batch system ended its job."""
        lifetime = self.limits.lifetimes.get(job.group, math.inf)
        since = math.inf if job.running_since is None else job.running_since
        has_lived = job.has_connected and self.view.now - since >= lifetime
        return status.is_walltime or (status.state == "gone" and has_lived)

    def _lose(self, job: Job, status: Seen, what: str, *, cancel: bool = False) -> None:
        is_expected = self._is_at_its_end(job, status)
        self.actions.append(
            Tell(
                f"{_name(job)} {what}",
                job.id,
                job.worker,
                log=not is_expected,
                is_warning=not is_expected,
                explain=status.state == "held",
                state="lost",
            )
        )
        if cancel:
            self.actions.append(Cancel(job.id, job.worker))
        if not is_expected:
            has_worked = self.view.work > self.state.work
            self.state = replace(
                self.state, losses=1 if has_worked else self.state.losses + 1, work=self.view.work
            )

    def _look_at_silence(self) -> None:
        since = self.state.silent_since
        if self.view.queue is not None:
            self.state = replace(self.state, silent_since=None)
        elif since is None:
            self.state = replace(self.state, silent_since=self.view.now)
            self.actions.append(Tell("the batch system does not answer; it is asked again"))

    def _look_at_patience(self) -> None:
        state, now, sizes = self.state, self.view.now, self.limits.sizes
        counts = {group: present(state, group, self.view.workers) for group in sizes}
        if all(counts[group] >= size.minimum for group, size in sizes.items()):
            state = replace(state, is_ready=True)
        is_met = state.is_ready and any(counts.values())
        since = None if is_met else (now if state.since is None else state.since)
        self.state = replace(state, since=since)
        if since is not None and now - since > self.limits.patience:
            demands = ", ".join(
                f"{counts[group]} of at least {size.minimum} {group}"
                for group, size in sizes.items()
            )
            reasons = sorted({job.reason for job in state.jobs if job.reason})
            because = f"; jobs are pending: {'; '.join(reasons)}" if reasons else ""
            self._give_up(f"after {now - since:.0f} s there are {demands}{because}")

    def _give_up(self, reason: str) -> None:
        if not self.state.given_up:
            self.state = replace(self.state, given_up=reason)
            self.actions += [*finish(self.state), GiveUp(reason)]

    def _resize(self) -> None:
        for group, size in self.limits.sizes.items():
            jobs = [job for job in self.state.jobs if job.group == group]
            number = max(size.minimum, min(size.maximum, self.view.backlog.get(group, 0)))
            if len(jobs) > number:
                self._end_some(jobs, len(jobs) - number)
            elif self.view.now >= self.state.no_submit_before and self.view.queue is not None:
                for _ in range(number - len(jobs)):
                    self._submit(group)

    def _end_some(self, jobs: list[Job], number: int) -> None:
        """End so many jobs if they have not begun, or if their workers are idle for long."""
        surplus = [job for job in reversed(jobs) if job.id and self._is_surplus(job)][:number]
        for job in surplus:
            self._note(job, "is not needed any more", "lost")
            self.actions.append(Cancel(job.id, job.worker))
        rest = tuple(job for job in self.state.jobs if job not in surplus)
        self.state = replace(self.state, jobs=rest)

    def _is_surplus(self, job: Job) -> bool:
        if job.idle_since is not None:
            return self.view.now - job.idle_since > self.limits.idle
        return job.running_since is None and job.worker not in self.view.workers

    def _submit(self, group: str) -> None:
        worker = f"{group}-{self.state.prefix}{self.state.number}"
        job = Job(worker, group, self.view.now)
        self.state = replace(self.state, jobs=(*self.state.jobs, job), number=self.state.number + 1)
        self.actions.append(Submit(group, worker))


def _name(job: Job) -> str:
    return f"job {job.id} ({job.worker})"


def _because(reason: str) -> str:
    return f" ({reason})" if reason else ""


def _same(action: Action, reason: str) -> bool:
    is_pending = isinstance(action, Tell) and "has been pending" in action.text
    return is_pending and action.text.endswith(_because(reason))  # type: ignore[union-attr]
