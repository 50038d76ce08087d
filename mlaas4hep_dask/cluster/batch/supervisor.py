"""Keeps the jobs of a cluster as many as are wanted: looks, asks the state machine, acts."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlaas4hep_dask.cluster.batch.actions import Action, Cancel, GiveUp, Submit, Tell
from mlaas4hep_dask.cluster.batch.limits import Limits
from mlaas4hep_dask.cluster.batch.queue import Queue, RefusedError, log_end
from mlaas4hep_dask.cluster.batch.states import State, View, finish, step
from mlaas4hep_dask.cluster.sites import Script
from mlaas4hep_dask.errors import ClusterError, MLaaSError

logger = logging.getLogger(__name__)

RECORDS = "jobs.jsonl"  # in the folder of scripts: what was seen and done, one JSON object a line


@dataclass(frozen=True)
class Workers:
    """What Dask knows of its workers.

    Attributes
    ----------
    names : frozenset of str
        Of those that are there.
    work : float
        Seconds that all have computed so far.
    backlog : mapping of str to int
        By group: the tasks that could run now.
    idle : frozenset of str
        Names of those that do nothing and hold nothing.
    """

    names: frozenset[str]
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
        The workers that Dask has now.
    limits : Limits
        Of the state machine.
    folder : Path
        Where scripts are written, one file per job.
    prefix : str
        What stands between group and number in the names of workers: the run's id.
    interval : float
        Seconds between two looks.
    tell : callable, optional
        Told every record too.
    """

    def __init__(
        self,
        queue: Queue,
        script_of: Callable[[str, str], Script],
        look: Callable[[], Workers],
        *,
        limits: Limits,
        folder: Path,
        prefix: str = "",
        interval: float = 2.0,
        tell: Callable[[Mapping[str, Any]], None] | None = None,
    ) -> None:
        self._queue = queue
        self._script_of = script_of
        self._look = look
        self._limits = limits
        self._folder = folder
        self._interval = interval
        self._tell_others = tell
        self._state = State(prefix=prefix)
        self._scripts: dict[str, Script] = {}
        self._submitted: dict[str, str] = {}
        self._refused: dict[str, str] = {}
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
        self._is_over.set()
        self._thread.join()
        self._end_jobs()

    def _run(self) -> None:
        try:
            while not self.failure:
                self.look_once()
                if self._is_over.wait(self._interval):
                    return
        except Exception as error:  # nobody else would hear of it
            failed = error if isinstance(error, MLaaSError) else None
            self.failure = failed or ClusterError(f"the supervisor of jobs failed ({error!r})")
            logger.info("%s", self.failure, exc_info=True)
            with suppress(Exception):
                self._end_jobs()

    def _end_jobs(self) -> None:
        """End all jobs, those too that the state machine has not been told of."""
        late = [Cancel(job, worker) for worker, job in self._submitted.items()]
        self._submitted = {}
        self._act((*finish(self._state), *late))

    def look_once(self) -> None:
        """One look, one step of the state machine, and what follows from it."""
        queue, workers = self._queue.seen(), self._look()
        view = View(
            now=time.monotonic(),
            queue=queue,
            workers=workers.names,
            work=workers.work,
            backlog=workers.backlog,
            idle=workers.idle,
            submitted=self._submitted,
            refused=self._refused,
        )
        self._submitted, self._refused = {}, {}
        self._state, actions = step(self._state, view, self._limits)
        self._act(actions)

    def _act(self, actions: tuple[Action, ...]) -> None:
        cancelled = [action for action in actions if isinstance(action, Cancel)]
        self._queue.cancel([action.id for action in cancelled])
        for each in cancelled:
            self._record("cancelled", worker=each.worker, job=each.id)
        for action in actions:
            match action:
                case Submit(group, worker):
                    self._submit(group, worker)
                case Tell():
                    self._tell(action)
                case GiveUp(reason):
                    self.failure = ClusterError(reason)
                    self._record("gave up", text=reason)
                case Cancel():
                    pass

    def _submit(self, group: str, worker: str) -> None:
        script = self._script_of(group, worker)
        self._scripts[worker] = script
        try:
            job = self._submitted[worker] = self._queue.submit(
                script, self._folder / f"{worker}.sh"
            )
        except RefusedError as error:
            self._refused[worker] = str(error)
            self._record("refused", group=group, worker=worker, text=str(error))
        else:
            log = script.log_of(job)
            self._record(
                "submitted",
                group=group,
                worker=worker,
                job=job,
                log=None if log is None else str(log),
            )

    def _tell(self, action: Tell) -> None:
        lines = [action.text]
        if action.explain and action.id and (explained := self._queue.explain(action.id)):
            lines.append(explained)
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
            with (self._folder / RECORDS).open("a") as file:
                file.write(json.dumps(record) + "\n")
        except OSError as error:
            logger.info("%s: %s", self._folder / RECORDS, error)
