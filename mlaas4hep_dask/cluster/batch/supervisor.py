"""Keeps the jobs of a cluster as many as are wanted: looks, asks the state machine, acts."""

from __future__ import annotations

import logging
import math
import shlex
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlaas4hep_dask.cluster.batch import records
from mlaas4hep_dask.cluster.batch.actions import Action, Cancel, GiveUp, Gone, Submit, Tell
from mlaas4hep_dask.cluster.batch.limits import Limits
from mlaas4hep_dask.cluster.batch.states import finish, step
from mlaas4hep_dask.cluster.batch.unanswered import Unanswered
from mlaas4hep_dask.cluster.batch.views import Seen, State, View, jobs_of_run
from mlaas4hep_dask.cluster.systems.queue import Queue, UnansweredError, log_end
from mlaas4hep_dask.cluster.systems.script import Script
from mlaas4hep_dask.errors import ClusterError, MLaaSError

logger = logging.getLogger(__name__)

# Within the time that a command has to end after Ctrl-C, also when the batch system is slow:
END = 15.0  # seconds
LAST_COMMANDS = 7.0  # seconds that each command of the batch system has then

LOOK_EVERY = 2.0  # seconds between two looks at the workers, however seldom the queue is asked
LOOKS_AFTER_LOST_JOB = 3  # at the queue, which has a job for some moments whose worker has left


@dataclass(frozen=True)
class Workers:
    """What Dask knows of its workers.

    Attributes
    ----------
    names : mapping of str to int
        Of the jobs whose workers are there: how many of each.
    work : float
        Seconds that all have computed so far.
    backlog : mapping of str to int
        By group: the tasks that could run now.
    idle : frozenset of str
        Names of the jobs whose workers do nothing and hold nothing.
    """

    names: Mapping[str, int]
    work: float = 0.0
    backlog: Mapping[str, int] = field(default_factory=dict)
    idle: frozenset[str] = frozenset()


class Supervisor:
    """A thread that submits jobs, replaces those that are lost and ends them all at the end.

    Parameters
    ----------
    queue : Queue
        Of the batch system.
    script_of : callable
        The script of a job, of a group and the name of its worker.
    look : callable
        The workers that Dask has now; None when its scheduler does not answer.
    limits : Limits
        Of the state machine.
    folder : Path
        Where scripts are written, one file per job, and records.
    prefix : str
        What stands between group and number in the names of workers: the run's id.
    interval : float
        Seconds between two looks at the queue; less when a worker has left.
    end : float
        Seconds in which jobs are ended, and seen off.
    tell : callable, optional
        Told every record too.
    """

    def __init__(
        self,
        queue: Queue,
        script_of: Callable[[str, str], Script],
        look: Callable[[], Workers | None],
        *,
        limits: Limits,
        folder: Path,
        prefix: str = "",
        interval: float = 2.0,
        end: float = END,
        tell: Callable[[Mapping[str, Any]], None] | None = None,
    ) -> None:
        self._queue = queue
        self._script_of = script_of
        self._look = look
        self._limits = limits
        self._folder = folder
        self._interval, self._end = interval, end
        self._tell_others = tell
        self._state = State(prefix=prefix)
        self._scripts: dict[str, Script] = {}
        self._submitted: dict[str, str] = {}
        self._refused: dict[str, str] = {}
        self._put_off: set[str] = set()
        self._unanswered = Unanswered(limits.settle)
        self._there: frozenset[str] = frozenset()  # jobs whose workers were there
        self._looks_soon = 0
        self._last_beat = -math.inf
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="supervisor of jobs", daemon=True)
        self.failure: MLaaSError | None = None

    @property
    def state(self) -> State:
        """What it keeps in mind."""
        return self._state

    def __enter__(self) -> Supervisor:
        for group in self._limits.sizes:  # what is wrong with a site shows here, at once
            self._script_of(group, f"{group}-{self._state.prefix}0")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        deadline = time.monotonic() + self._end
        self._is_over.set()
        self._queue.hurry(LAST_COMMANDS)
        self._cancel(self._left())  # first of all: the thread may wait for a command
        self._thread.join(LAST_COMMANDS + 2.0)  # in which its command has ended
        self._see_off(deadline)

    def _run(self) -> None:
        try:
            while not self.failure:
                self.look_once()
                self._wait()
                if self._is_over.is_set():
                    return
        except Exception as error:  # nobody else would hear of it
            if self._is_over.is_set():
                return
            own_error = error if isinstance(error, MLaaSError) else None
            self.failure = own_error or ClusterError(f"the supervisor of jobs failed ({error!r})")
            logger.info("%s", self.failure, exc_info=True)
            self._cancel(self._left())

    def _wait(self) -> None:
        """Wait until the queue is to be asked again: soon when a worker has left, or the end came.

        Dask knows at once that a worker is gone. So a lost job is soon replaced where a queue that
        others share may be asked once in a minute only.
        """
        is_soon = self._looks_soon > 0
        self._looks_soon -= is_soon
        until = time.monotonic() + min(self._interval, LOOK_EVERY if is_soon else self._interval)
        while (left := until - time.monotonic()) > 0:
            if self._is_over.wait(min(left, LOOK_EVERY)) or left <= LOOK_EVERY:
                return
            names = frozenset(workers.names) if (workers := self._look()) else self._there
            if self._there - names:
                self._looks_soon = LOOKS_AFTER_LOST_JOB
                return
            self._there = names

    def _left(self) -> dict[str, str]:
        """Workers, by id, of the jobs that may be in the queue, as far as is known."""
        jobs = {each.id: each.worker for each in finish(self._state)}
        return jobs | {job: worker for worker, job in dict(self._submitted).items()}

    def _see_off(self, deadline: float) -> None:
        """Look until the queue has none of the jobs, and end those again that it has."""
        jobs, end = self._left(), time.monotonic() + LAST_COMMANDS
        is_unseen = self._state.number > 0  # it may have jobs that an answer lacked
        while jobs or is_unseen or (self._unanswered and time.monotonic() < end):
            self._queue.hurry(min(LAST_COMMANDS, max(1.0, deadline - time.monotonic())))
            queue = self._queue.seen()
            if queue is not None:
                for worker, job in self._unanswered.found(queue).items():
                    self._accept(worker, job)
                    jobs[job] = worker
                jobs |= jobs_of_run(queue, self._state.prefix)
                is_unseen = False
                for job in [job for job in jobs if _is_out(queue.get(job))]:
                    self._record("gone", worker=jobs.pop(job), job=job)
            if time.monotonic() > deadline:
                break
            self._cancel(jobs)
            if jobs or is_unseen or self._unanswered:
                time.sleep(min(self._interval, 1.0))
        if jobs:
            command = shlex.join(self._queue.cancel_command(list(jobs)))
            logger.warning("%d jobs may be in the queue; to end them:\n  %s", len(jobs), command)
        if workers := self._unanswered.workers:
            names = ", ".join(workers)
            count = f"{len(workers)} jobs were submitted without an answer"
            logger.warning("%s, and may come into the queue; they are looked for: %s", count, names)

    def look_once(self) -> None:
        """One look, one step of the state machine, and what follows from it."""
        self._beat()
        queue, words = self._queue.seen(), self._queue.said
        workers = self._look()
        if self._is_over.is_set():
            return
        if workers is not None:
            self._there = frozenset(workers.names)
        now, strays = time.monotonic(), dict[str, str]()
        if queue is not None:
            for worker, job in self._unanswered.found(queue).items():
                self._accept(worker, job)
            strays = self._unanswered.strays(queue)
            for worker, words in self._unanswered.refused(now).items():
                self._refuse(worker, words)
        view = View(
            now=now,
            queue=queue,
            workers=None if workers is None else workers.names,
            work=self._state.last_work if workers is None else workers.work,
            backlog={} if workers is None else workers.backlog,
            idle=frozenset() if workers is None else workers.idle,
            submitted=self._submitted,
            refused=self._refused,
            put_off=frozenset(self._put_off),
            strays=strays,
            words=words,
        )
        self._state, actions = step(self._state, view, self._limits)
        self._submitted, self._refused, self._put_off = {}, {}, set()
        self._act(actions)

    def _act(self, actions: tuple[Action, ...]) -> None:
        self._cancel({each.id: each.worker for each in actions if isinstance(each, Cancel)})
        full_groups: set[str] = set()  # of which no other job is tried in this step
        for action in actions:
            match action:
                case Submit(group, worker):
                    if group in full_groups or self._is_over.is_set():
                        self._put_off.add(worker)
                    else:
                        full_groups |= self._submit(group, worker)
                case Tell():
                    self._tell(action)
                case Gone(job, worker):
                    self._record("gone", worker=worker, job=job)
                case GiveUp(reason):
                    self.failure = ClusterError(reason)
                    self._record("gave up", text=reason)
                case Cancel():
                    pass

    def _cancel(self, jobs: Mapping[str, str]) -> None:
        """End jobs, of which the workers' names are given by id, by one command."""
        if not jobs:
            return
        words = self._queue.cancel(list(jobs))
        for job, worker in jobs.items():
            self._record(
                "not cancelled" if words else "cancelled", worker=worker, job=job, text=words
            )

    def _submit(self, group: str, worker: str) -> set[str]:
        """Submit a job; the groups of which no other need be tried now."""
        try:
            script = self._scripts[worker] = self._script_of(group, worker)
            job = self._queue.submit(script, self._folder / f"{worker}.sh")
        except UnansweredError as error:
            self._unanswered.add(worker, script.name, str(error), time.monotonic())
            self._record("unanswered", group=group, worker=worker, text=str(error))
            logger.warning("%s; it is looked for in the queue (%s)", error, worker)
            return set(self._limits.sizes)
        except (MLaaSError, OSError) as error:
            self._refuse(worker, str(error))
            return {group}
        self._accept(worker, job)
        return set()

    def _beat(self) -> None:
        if time.monotonic() - self._last_beat > records.BEAT:
            self._last_beat = time.monotonic()
            with suppress(OSError):
                records.beat(self._folder)

    def _refuse(self, worker: str, words: str) -> None:
        self._refused[worker] = words
        self._record("refused", group=_group_of(worker), worker=worker, text=words)

    def _accept(self, worker: str, job: str) -> None:
        self._submitted[worker] = job
        path = self._scripts[worker].log_of(job)
        log = None if path is None else str(path)
        self._record("submitted", group=_group_of(worker), worker=worker, job=job, log=log)

    def _tell(self, action: Tell) -> None:
        lines = [action.text]
        if action.explain and action.id and not self._is_over.is_set():
            ask = self._queue.explain if action.explain == "start" else self._queue.end_of
            lines += filter(None, [ask(action.id)])
        script = self._scripts.get(action.worker)
        if action.log and script and (end := log_end(script, action.id)):
            lines += [f"the end of {script.log_of(action.id)}:", end]
        text = "\n".join(lines)
        self._record("told", worker=action.worker, job=action.id, state=action.state, text=text)
        logger.log(logging.WARNING if action.is_warning else logging.INFO, "%s", text)

    def _record(self, event: str, **facts: str | None) -> None:
        """Write down what was seen or done; what cannot be written is no reason to end."""
        values = {key: value for key, value in facts.items() if value}
        record = {"time": round(time.time(), 3), "event": event, **values}
        if self._tell_others is not None:
            self._tell_others(record)
        try:
            records.add(self._folder, record)
        except OSError as error:
            logger.info("%s: %s", self._folder / records.JOBS, error)


def _group_of(worker: str) -> str:
    return worker.partition("-")[0]


def _is_out(status: Seen | None) -> bool:
    """True when a job has left the queue, or its processes are being ended."""
    return status is None or status.state == "gone" or status.is_ending
