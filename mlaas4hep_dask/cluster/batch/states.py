"""What a supervisor does next: the queue's view of jobs and Dask's of workers become actions.

Nothing here waits, asks or acts. A job is one worker process; the worker's name tells them apart.

1. A job is *submitted*; the batch system gives it an id, or refuses it.
2. It is *pending* until the batch system starts it, *running* then, and *connected* once Dask has
   its worker.
3. It is *lost* when it left the queue, is held, runs without connecting, or its worker stays away.
   Each is told and, if workers are still wanted, another job is submitted in the same step. An
   answer that lacks a job may be short: as long as its worker is there, or for a moment before it
   has come, the job is kept, and one that the queue shows again is taken back.
4. A job that was ended is *leaving* until the queue does not have it any more, and is ended again
   when that takes long.
5. Losses without work done in between are counted; too many end the run, as do a minimum of workers
   that does not come in time, and refusals where nothing else is left. Jobs that had connected
   and are lost at once, as with their node, are one loss; while others work, any are.

What does not answer, the queue or Dask's scheduler, shows nothing: all stays as it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from mlaas4hep_dask.cluster.batch.actions import Action, Cancel, GiveUp, Gone, Submit, Tell
from mlaas4hep_dask.cluster.batch.limits import Limits
from mlaas4hep_dask.cluster.batch.silence import look_at_silence, silence
from mlaas4hep_dask.cluster.batch.views import (
    Job,
    Leaving,
    Refusals,
    Seen,
    State,
    View,
    jobs_of_run,
)
from mlaas4hep_dask.cluster.batch.words import because, name, waits_for


def step(state: State, view: View, limits: Limits) -> tuple[State, tuple[Action, ...]]:
    """The next state, and what is to be done; pure."""
    if state.given_up:
        return state, ()
    machine = _Step(state, view, limits)
    return machine.done()


def finish(state: State) -> tuple[Cancel, ...]:
    """What ends all jobs, and again those that are leaving."""
    jobs = [Cancel(job.id, job.worker) for job in state.jobs if job.id]
    return (*jobs, *(Cancel(job.id, job.worker) for job in state.leaving))


def present(state: State, group: str, workers: Mapping[str, int]) -> int:
    """Workers of a group that are there."""
    return sum(workers.get(job.worker, 0) for job in state.jobs if job.group == group)


class _Step:
    def __init__(self, state: State, view: View, limits: Limits) -> None:
        self.state = state
        self.view = view
        self.limits = limits
        self.actions: list[Action] = []
        self.num_unconnected = 0  # lost in this step before their workers had come
        self.has_lost_connected = False

    def done(self) -> tuple[State, tuple[Action, ...]]:
        self._take_answers()
        self.state, told = look_at_silence(self.state, self.view, self.limits)
        self.actions += told
        self._take_back()
        jobs = [kept_job for job in self.state.jobs if (kept_job := self._look(job)) is not None]
        self.state = replace(self.state, jobs=tuple(jobs))
        self._look_at_leaving()
        self._look_at_patience()
        self._count_losses()
        if self.state.num_losses > self.limits.max_losses:
            count = f"{self.state.num_losses} jobs were lost without work done in between"
            self._give_up(f"{count}; the last reasons stand above, and in the log of each job")
        self._look_at_refusals()
        if not self.state.given_up:
            self._resize()
        return self.state, tuple(self.actions)

    def _take_answers(self) -> None:
        jobs: list[Job] = []
        answers: dict[str, str] = {}
        for job in self.state.jobs:
            if job.worker in self.view.refused:
                answers[job.group] = self.view.refused[job.worker]
            elif job.worker in self.view.submitted:
                refusals = {**self.state.refusals, job.group: Refusals()}
                self.state = replace(self.state, refusals=refusals, has_accepted=True)
                jobs.append(replace(job, id=self.view.submitted[job.worker]))
            elif job.worker not in self.view.put_off:
                jobs.append(job)
        self.state = replace(self.state, jobs=tuple(jobs))
        for group, words in answers.items():  # several of one step are one refusal
            self._take_refusal(group, words)
        for worker, job_id in self.view.strays.items():
            self._cancel(job_id, worker)

    def _take_back(self) -> None:
        """Keep what the queue has of this run, though it counts as gone: an answer was short."""
        queue = self.view.queue or {}
        known = {job.id for job in self.state.jobs} | {job.id for job in self.state.leaving}
        workers = {job.worker for job in self.state.jobs}
        for job_id, worker in jobs_of_run(queue, self.state.prefix).items():
            if job_id in known:
                continue
            group, is_new = worker.partition("-")[0], worker not in workers
            if group not in self.limits.sizes or not is_new:
                self._cancel(job_id, worker)
                continue
            job = Job(worker, group, self.view.now, job_id)
            self._note(job, "is in the queue, though it had left; it is taken back", "pending")
            self.state = replace(self.state, jobs=(job, *self.state.jobs))

    def _take_refusal(self, group: str, words: str) -> None:
        count = self.state.refusals.get(group, Refusals()).count + 1
        seconds = self.limits.pause * 2.0 ** min(count - 1, 64)
        pause = min(seconds, max(self.limits.pause, self.limits.max_pause))
        refusals = Refusals(count, self.view.now + pause, words)
        self.state = replace(self.state, refusals={**self.state.refusals, group: refusals})
        self.actions.append(
            Tell(f"the batch system refused a job of {group}: {words}; next try in {pause:.0f} s")
        )

    def _look_at_refusals(self) -> None:
        """Give up where refusals are all there is: a job or a worker may do the work alone."""
        if any(job.id for job in self.state.jobs) or self.view.workers != {}:
            return
        limits = self.limits
        most = limits.max_later_refusals if self.state.has_accepted else limits.max_refusals
        for each in self.state.refusals.values():
            if each.count >= most:
                times = f"{each.count} times one after the other"
                self._give_up(f"the batch system refused jobs {times}: {each.words}")

    def _look_at_leaving(self) -> None:
        """See off the jobs that were ended, and end again those that stay."""
        if self.view.queue is None:
            return
        jobs = []
        for job in self.state.leaving:
            status = self.view.queue.get(job.id, Seen("gone"))
            waited = self.view.now - job.since
            if status.state == "gone" or status.is_ending:
                self.actions.append(Gone(job.id, job.worker))
                continue
            if waited > self.limits.again:
                text = f"job {job.id} ({job.worker}) is in the queue {waited:.0f} s after its end"
                self.actions.append(Tell(f"{text} was asked for; it is ended again"))
                self.actions.append(Cancel(job.id, job.worker))
                job = replace(job, since=self.view.now)
            jobs.append(job)
        self.state = replace(self.state, leaving=tuple(jobs))

    def _cancel(self, job: str, worker: str) -> None:
        self.actions.append(Cancel(job, worker))
        jobs = (*self.state.leaving, Leaving(job, worker, self.view.now))
        self.state = replace(self.state, leaving=jobs)

    def _look(self, job: Job) -> Job | None:
        """The job as it is now; None when it is lost."""
        now = self.view.now
        if self.view.workers is not None:
            job = self._look_at_worker(job, is_here=job.worker in self.view.workers)
        if not job.id or self.view.queue is None:
            return job
        status = self.view.queue.get(job.id)
        since = job.absent_since if job.absent_since is not None else now
        job = replace(job, absent_since=since if status is None else None)
        if status is None:
            if not self._is_missed(job, now - since):
                return job
            status = Seen("gone")
        if status.state == "gone":
            self._lose(job, status, f"left the queue{because(status.reason)}")
            return None
        if status.state == "held":
            self._lose(job, status, f"is held{because(status.reason)}", cancel=True)
            return None
        if status.state == "suspended":
            return self._look_at_waiting(self._suspended(job), status)
        if status.state == "pending":
            if job.running_since is not None:
                job = self._put_back(job, status)
            return self._look_at_waiting(job, status)
        if job.is_suspended:
            job = replace(job, is_suspended=False)
            self._note(job, "goes on", "connected" if job.has_connected else "running")
        if job.running_since is None:
            job = replace(job, running_since=now, is_stale=False)
            self._note(job, "runs", "connected" if job.has_connected else "running")
        assert job.running_since is not None
        if self.view.workers is None:
            return job
        heard = self.state.heard_since
        connect = self.limits.connects.get(job.group, self.limits.connect)
        if not job.has_connected and now - max(job.running_since, heard) > connect:
            what = f"has run for {now - job.running_since:.0f} s, and its worker has not connected"
            self._lose(job, status, what, cancel=True)
            return None
        if job.away_since is not None and now - max(job.away_since, heard) > self.limits.away:
            what = f"runs, but its worker has been away for {now - job.away_since:.0f} s"
            self._lose(job, status, what, cancel=True)
            return None
        return job

    def _is_missed(self, job: Job, seconds: float) -> bool:
        """Whether a job that the queue has not shown for so long has left it."""
        if job.has_connected:
            return self.view.workers is not None and job.worker not in self.view.workers
        return seconds >= self.limits.absent

    def _suspended(self, job: Job) -> Job:
        """A job whose processes are stopped: until they go on, no time counts against it."""
        now = self.view.now
        if not job.is_suspended:
            job = replace(job, is_suspended=True, since=now)
        if job.away_since is not None:
            job = replace(job, away_since=now)
        if job.running_since is not None and not job.has_connected:
            job = replace(job, running_since=now)
        return job

    def _put_back(self, job: Job, status: Seen) -> Job:
        """A job that the batch system will start again; it ran in vain if its worker never came."""
        text = f"{name(job)} was put back into the queue{because(status.reason)}"
        is_in_vain = not job.has_connected
        self.actions.append(Tell(text, job.id, job.worker, log=is_in_vain, state="pending"))
        self.num_unconnected += is_in_vain
        return replace(
            job,
            since=self.view.now,
            running_since=None,
            away_since=None,
            has_connected=False,
            is_stale=job.worker in (self.view.workers or {}),
            is_suspended=False,
        )

    def _look_at_worker(self, job: Job, *, is_here: bool) -> Job:
        now = self.view.now
        if job.is_stale:  # Dask has not missed yet the worker of the start before
            return replace(job, is_stale=is_here)
        if not is_here:
            is_news = job.has_connected and job.away_since is None
            return replace(job, away_since=now) if is_news else job
        if not job.has_connected:
            self._note(job, "has connected", "connected")
        idle_since = job.idle_since if job.idle_since is not None else now
        is_idle = job.worker in self.view.idle
        return replace(
            job, has_connected=True, away_since=None, idle_since=idle_since if is_idle else None
        )

    def _note(self, job: Job, what: str, state: str) -> None:
        text = f"{name(job)} {what}"
        self.actions.append(Tell(text, job.id, job.worker, is_warning=False, state=state))

    def _look_at_waiting(self, job: Job, status: Seen) -> Job:
        now = self.view.now
        is_news = status.reason != job.reason and now - job.told >= self.limits.word
        is_due = now - job.since >= self.limits.word and (
            is_news or now - job.told >= self.limits.next_word
        )
        if not is_due:
            return job
        waited = f"has been {status.state} for {now - job.since:.0f} s{because(status.reason)}"
        # Many wait for the same: it is said of the first of them alone.
        others = [each for each in self.state.jobs if each.told == now and each.id != job.id]
        if not any(waits_for(action, status.reason) for action in self.actions) and not others:
            text = f"{name(job)} {waited}"
            self.actions.append(Tell(text, job.id, job.worker, explain="start", state=status.state))
        return replace(job, reason=status.reason, told=now)

    def _is_at_its_end(self, job: Job, status: Seen) -> bool:
        """True when a worker that had done its time ended, or the batch system ended its job."""
        lifetime = self.limits.lifetimes.get(job.group, math.inf)
        since = math.inf if job.running_since is None else job.running_since
        has_lived = job.has_connected and self.view.now - since >= lifetime
        return status.is_walltime or (status.state == "gone" and has_lived)

    def _lose(self, job: Job, status: Seen, what: str, *, cancel: bool = False) -> None:
        is_expected = self._is_at_its_end(job, status)
        is_silent = status.state == "gone" and not status.reason
        self.actions.append(
            Tell(
                f"{name(job)} {what}",
                job.id,
                job.worker,
                log=not is_expected,
                is_warning=not is_expected,
                explain="start" if status.state == "held" else "end" if is_silent else "",
                state="lost",
            )
        )
        if cancel:
            self._cancel(job.id, job.worker)
        if not is_expected and job.has_connected:
            self.has_lost_connected = True
        elif not is_expected:
            self.num_unconnected += 1

    def _count_losses(self) -> None:
        """Count the losses of this step: a node may take many jobs along, and is one loss."""
        number = self.num_unconnected + self.has_lost_connected
        if not number:
            return
        has_worked = self.view.work > self.state.work
        num_losses = 1 if has_worked else self.state.num_losses + number
        self.state = replace(self.state, num_losses=num_losses, work=self.view.work)

    def _look_at_patience(self) -> None:
        state, now, sizes = self.state, self.view.now, self.limits.sizes
        workers = self.view.workers
        if workers is None:
            deaf = 0.0 if state.deaf_since is None else now - state.deaf_since
            if deaf > self.limits.patience:
                self._give_up(f"Dask's scheduler has not answered for {deaf:.0f} s")
            return
        num_workers = {group: present(state, group, workers) for group in sizes}
        ready = {group for group, size in sizes.items() if num_workers[group] >= size.minimum}
        ready |= state.ready
        # Who has been there may be away while others are here; who has not is missed all the same,
        # but not in vain as long as others work without it.
        absent = [group for group in sizes if group not in ready or not any(num_workers.values())]
        is_at_work = self.view.work > state.last_work and any(num_workers.values())
        since = {group: now if is_at_work else state.since.get(group, now) for group in absent}
        self.state = replace(state, since=since, ready=frozenset(ready), last_work=self.view.work)
        waited = now - min(since.values(), default=now)
        if waited > self.limits.patience:
            demands = ", ".join(
                f"{num_workers[group]} of at least {size.minimum} {group}"
                for group, size in sizes.items()
            )
            reasons = sorted({job.reason for job in state.jobs if job.reason})
            pending = f"; jobs are pending: {'; '.join(reasons)}" if reasons else ""
            silent = silence(self.state, now)
            why = f"{pending}; {silent}" if silent else pending
            self._give_up(f"after {waited:.0f} s there are {demands}{why}")

    def _give_up(self, reason: str) -> None:
        if not self.state.given_up:
            self.state = replace(self.state, given_up=reason)
            self.actions += [*finish(self.state), GiveUp(reason)]

    def _resize(self) -> None:
        if self.view.workers is None:
            return
        sizes, processes = self.limits.sizes, self.limits.processes
        least, most = (
            {
                group: size.jobs(backlog.get(group, 0), processes.get(group, 1))
                for group, size in sizes.items()
            }
            for backlog in ({}, self.view.backlog)
        )
        for group, number in most.items():
            jobs = self._jobs_of(group)
            if len(jobs) > number:
                self._end_some(jobs, len(jobs) - number)
        for numbers in (least, most):  # where not all are accepted, each group has its minimum
            for group, number in numbers.items():
                self._submit(group, number - len(self._jobs_of(group)))

    def _jobs_of(self, group: str) -> list[Job]:
        return [job for job in self.state.jobs if job.group == group]

    def _end_some(self, jobs: list[Job], number: int) -> None:
        """End so many jobs if they have not begun, or if their workers are idle for long."""
        surplus = [job for job in reversed(jobs) if job.id and self._is_surplus(job)][:number]
        for job in surplus:
            self._note(job, "is not needed any more", "lost")
            self._cancel(job.id, job.worker)
        rest = tuple(job for job in self.state.jobs if job not in surplus)
        self.state = replace(self.state, jobs=rest)

    def _is_surplus(self, job: Job) -> bool:
        if job.idle_since is not None:
            return self.view.now - job.idle_since > self.limits.idle
        return job.running_since is None and job.worker not in (self.view.workers or {})

    def _submit(self, group: str, number: int) -> None:
        until = self.state.refusals.get(group, Refusals()).until
        if self.view.queue is None or self.view.now < until:
            return
        for _ in range(number):
            worker = f"{group}-{self.state.prefix}{self.state.number}"
            jobs = (*self.state.jobs, Job(worker, group, self.view.now))
            self.state = replace(self.state, jobs=jobs, number=self.state.number + 1)
            self.actions.append(Submit(group, worker))
