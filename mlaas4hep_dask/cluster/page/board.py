"""What the page shows: the records of runs and jobs, folded into tables as they come."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mlaas4hep_dask import journal
from mlaas4hep_dask.journal import (
    Caution,
    Death,
    End,
    Epoch,
    LostRange,
    Progress,
    Retries,
    Run,
    Samples,
    Stage,
    StageEnd,
)
from mlaas4hep_dask.journal.records import from_json

MAX_POINTS = 2_000  # of the rates
MAX_LINES = 200  # of lost ranges, epochs, and jobs that are over
MAX_CAUTIONS = 20
OVER = ("refused", "lost", "cancelled")  # states of jobs
MAX_RUNS = 5
LEAST_SECONDS = 0.2  # of progress that gives a rate


@dataclass
class StageRow:
    """A stage: events done and in all, seconds, and events per second lately."""

    events: int = 0
    total: int = 0
    seconds: float = 0.0
    rate: float | None = None
    is_over: bool = False


@dataclass
class RunBoard:
    """What one run has told.

    Attributes
    ----------
    run : Run or None
        The process that works on it.
    stages : dict of str to StageRow
        In the order in which they began.
    rates : deque of (float, str, float)
        Time, stage and events per second.
    samples : dict of str to dict of str to int
        Files and events of the plan, events read and selected.
    waits : deque of (int, int, float, float)
        Epoch, rank, seconds in which the rank waited for data, and seconds of the epoch.
    lost_ranges, cautions : deque
        The last ones.
    num_lost : int
        Files and entry ranges that could not be read.
    retries : Counter of str
        By file: attempts to read that failed and were repeated.
    num_deaths : int
        Workers that left without being asked to.
    end : End or None
        How it has ended.
    """

    run: Run | None = None
    stages: dict[str, StageRow] = field(default_factory=dict)
    rates: deque[tuple[float, str, float]] = field(default_factory=lambda: deque(maxlen=MAX_POINTS))
    samples: dict[str, dict[str, int]] = field(default_factory=dict)
    waits: deque[tuple[int, int, float, float]] = field(
        default_factory=lambda: deque(maxlen=MAX_LINES)
    )
    lost_ranges: deque[LostRange] = field(default_factory=lambda: deque(maxlen=MAX_LINES))
    cautions: deque[str] = field(default_factory=lambda: deque(maxlen=MAX_CAUTIONS))
    num_lost: int = 0
    retries: Counter[str] = field(default_factory=Counter)
    num_deaths: int = 0
    end: End | None = None

    def hear(self, facts: Mapping[str, Any]) -> None:
        """Fold a record in; kinds that are not shown are passed over."""
        record = from_json(facts)
        match record:
            case Run():
                self.run = record
            case Stage():
                self.stages.pop(record.stage, None)  # of an attempt before
                self.stages[record.stage] = StageRow(total=record.events)
            case Progress():
                self._advance(record, float(facts["time"]))
            case StageEnd():
                row = self.stages.setdefault(record.stage, StageRow())
                row.events, row.seconds, row.is_over = record.events, record.seconds, True
                row.rate = record.events_per_second if record.events else None
            case Samples():
                for name, amounts in record.samples.items():
                    self.samples.setdefault(name, {}).update(amounts)
            case Epoch():
                seconds = float(record.metrics.get("seconds", 0.0))
                for rank, waited in enumerate(record.metrics.get("data_wait", ())):
                    self.waits.append((record.epoch, rank, float(waited), seconds))
            case LostRange():
                self.lost_ranges.append(record)
                self.num_lost += 1
            case Retries():
                self.retries[record.file] += record.attempts
            case Caution():
                self.cautions.append(record.text.partition("\n")[0])
            case Death():
                self.num_deaths += not record.is_expected
            case End():
                self.end = record

    def _advance(self, record: Progress, time: float) -> None:
        row = self.stages.setdefault(record.stage, StageRow())
        seconds, events = record.seconds - row.seconds, record.events - row.events
        row.total = record.total
        if seconds < LEAST_SECONDS:
            return
        row.events, row.seconds, row.rate = record.events, record.seconds, events / seconds
        self.rates.append((time, record.stage, row.rate))

    def state(self) -> str:
        """One line: the run, and how it stands."""
        name = "a run" if self.run is None else self.run.name
        where = "" if self.run is None else f", process {self.run.process} on {self.run.host}"
        if self.end is not None:
            how = journal.text(self.end)
        else:
            at_work = [stage for stage, row in self.stages.items() if not row.is_over]
            how = f"stage {at_work[-1]}" if at_work else "between stages"
        deaths = f", {self.num_deaths} workers died" if self.num_deaths else ""
        ranges = f", {self.num_lost} files or entry ranges lost" if self.num_lost else ""
        return f"{name}{where}: {how}{deaths}{ranges}"


@dataclass
class JobRow:
    """A job of a batch system: group, worker, id, state, and what was said of it last."""

    group: str = ""
    worker: str = ""
    job: str = ""
    state: str = ""
    reason: str = ""


@dataclass
class Board:
    """All that was told at a scheduler.

    Attributes
    ----------
    runs : dict of str to RunBoard
        The last runs; the one that told last comes last.
    jobs : dict of str to JobRow
        By worker: those that are not over, and the last ones that are.
    trouble : str
        Why no more jobs were submitted; empty unless it was given up.
    done : dict of str to Counter of str
        By stage: events of each sample that workers have gone through.
    """

    runs: dict[str, RunBoard] = field(default_factory=dict)
    jobs: dict[str, JobRow] = field(default_factory=dict)
    trouble: str = ""
    done: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))

    def hear(self, message: Mapping[str, Any]) -> None:
        """Take a message of a `Teller`."""
        name = message["run"]
        if not name:
            for facts in message["records"]:
                self._hear_of_job(facts)
            return
        if name not in self.runs:
            self.done.clear()  # of the run before
        run = self.runs[name] = self.runs.pop(name, RunBoard())
        while len(self.runs) > MAX_RUNS:
            del self.runs[next(iter(self.runs))]
        for facts in message["records"]:
            run.hear(facts)

    def hear_of_sample(self, message: Mapping[str, Any]) -> None:
        """Take what a worker tells of a partition."""
        self.done[message["stage"]][message["sample"]] += message["events"]

    @property
    def latest(self) -> RunBoard | None:
        """The run that told last."""
        return self.runs[next(reversed(self.runs))] if self.runs else None

    def jobs_by_state(self) -> list[tuple[str, str, int, str]]:
        """Group, state, number of jobs and the most frequent reason."""
        groups: dict[tuple[str, str], list[str]] = {}
        for row in self.jobs.values():
            groups.setdefault((row.group, row.state), []).append(row.reason)
        return [
            (group, state, len(reasons), _most_frequent(reasons))
            for (group, state), reasons in sorted(groups.items())
        ]

    def _hear_of_job(self, facts: Mapping[str, Any]) -> None:
        event, worker = facts.get("event"), str(facts.get("worker", ""))
        reason = str(facts.get("text") or "").partition("\n")[0]
        if event == "gave up":
            self.trouble = reason
            return
        row = self.jobs[worker] = self.jobs.pop(worker, JobRow(worker.partition("-")[0], worker))
        row.group, row.job = facts.get("group") or row.group, facts.get("job") or row.job
        match event:
            case "submitted":
                row.state = "pending"
            case "refused":
                row.state, row.reason = "refused", reason
            case "told":
                row.state, row.reason = facts.get("state") or row.state, reason
            case "cancelled" if row.state != "lost":
                row.state = "cancelled"
        over = [worker for worker, each in self.jobs.items() if each.state in OVER]
        for worker in over[:-MAX_LINES]:
            del self.jobs[worker]


def _most_frequent(reasons: Iterable[str]) -> str:
    most_common = Counter(reason for reason in reasons if reason).most_common(1)
    return most_common[0][0] if most_common else ""
