"""The records of a journal, one class for each kind, and their form as JSON values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, Literal

VERSION = 1  # of a line
SPLITS = ("train", "validation", "test")  # the parts of a data set
Outcome = Literal["complete", "failed", "interrupted", "moved"]  # how a process has ended


@dataclass(frozen=True)
class Run:
    """A process has begun to work on a run, or to score files.

    Parameters
    ----------
    name : str
        Of the configuration, or of the file that scores go to.
    package : str
        Version of this package.
    process : int
        Number of the process.
    host : str
        The machine that it runs on.
    command : str or None
        The command line; None for a run from Python.
    birth : str
        When the process began, as `birth_of` has it; empty where nothing tells.
    head : str
        The folder, beside that of the run, of what ``--detach`` has begun; empty without it.
    verb : str
        Of the command: ``run`` or ``predict``.
    """

    name: str
    package: str
    process: int
    host: str
    command: str | None
    birth: str = ""
    head: str = ""
    verb: str = "run"


@dataclass(frozen=True)
class Stage:
    """A stage has begun; ``events`` are those before it, 0 where they are not known."""

    stage: str
    events: int


@dataclass(frozen=True)
class Progress:
    """How many of its ``total`` events a stage has gone through, and the seconds since it began."""

    stage: str
    events: int
    total: int
    seconds: float


@dataclass(frozen=True)
class StageEnd:
    """A stage has ended: the events it went through and its seconds.

    One with ``is_complete`` False was broken off by an error or an interrupt.
    """

    stage: str
    events: int
    seconds: float
    is_complete: bool = True

    @property
    def events_per_second(self) -> float:
        """The rate."""
        return self.events / self.seconds if self.seconds > 0 else 0.0

    def as_json(self) -> dict[str, Any]:
        """The stage as ``metrics.json`` has it."""
        return {
            "stage": self.stage,
            "events": self.events,
            "seconds": round(self.seconds, 4),
            "events_per_second": round(self.events_per_second, 1),
        }


@dataclass(frozen=True)
class Samples:
    """What is known of each sample after a stage.

    Parameters
    ----------
    stage : str
        ``plan`` or ``specs``.
    samples : mapping of str to mapping of str to int
        By name: after the plan its ``files`` and ``events``, after the specs the events that were
        ``read`` and those that were ``selected``.
    """

    stage: str
    samples: Mapping[str, Mapping[str, int]]


@dataclass(frozen=True)
class Epoch:
    """An epoch is complete, and its checkpoint is written.

    Parameters
    ----------
    epoch, epochs : int
        Its number, from 1, and how many there will be.
    metrics : mapping of str to Any
        Its entry in ``epochs`` of ``metrics.json``: seconds, rate, and the metrics of each split
        over all ranks.
    key, title : str
        The metric that is shown beside the loss: its key in a split, and its name.
    """

    epoch: int
    epochs: int
    metrics: Mapping[str, Any]
    key: str
    title: str


@dataclass(frozen=True)
class Message:
    """What the run says on its console, and no other record tells."""

    text: str


@dataclass(frozen=True)
class Note:
    """A remark on data, specs or training; all of them stand in the report."""

    text: str


@dataclass(frozen=True)
class Caution:
    """A warning; of one that came through Python's logging, ``logger`` is the logger's name."""

    text: str
    logger: str = ""


@dataclass(frozen=True)
class LostRange:
    """Events that could not be read and are lost to the run.

    Parameters
    ----------
    stage : str
        Where they were lost: ``plan``, ``specs`` or ``train``.
    sample, file, tree : str
        Whose they are.
    entry_start : int
        The first entry.
    entry_stop : int or None
        The entry after the last; None when the file could not even be opened.
    reason : str
        Why.
    num_events : int or None
        The selected events among them, where that is known.
    """

    stage: str
    sample: str
    file: str
    tree: str
    entry_start: int
    entry_stop: int | None
    reason: str
    num_events: int | None = None


@dataclass(frozen=True)
class Retries:
    """Attempts to read a remote file that failed up to the end of a stage, and were repeated."""

    stage: str
    file: str
    attempts: int


@dataclass(frozen=True)
class Death:
    """A worker of the cluster has left; ``is_expected`` if it was asked to."""

    worker: str
    is_expected: bool


@dataclass(frozen=True)
class Scores:
    """Files are scored, and the scores are written.

    Parameters
    ----------
    path, form : str
        The output, and what it holds: ``TTree``, ``RNTuple`` or ``Parquet``.
    branches : sequence of str
        What it holds of each event.
    counts : mapping of str to int
        What was scored, left out and changed on the way, by what it is.
    skipped : sequence of mapping
        Files and entry ranges that were left out, and why.
    """

    path: str
    form: str
    branches: Sequence[str]
    counts: Mapping[str, int]
    skipped: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class End:
    """A process has ended its work on a run, with the line of the error if it failed.

    ``moved`` is the end for a journal whose folder was moved aside: the process goes on elsewhere.
    ``exit_status`` is that of the command, None where there is no such.
    """

    status: Outcome
    error: str = ""
    exit_status: int | None = None


@dataclass(frozen=True)
class Other:
    """A record of a kind that this version does not know."""

    kind: str
    facts: Mapping[str, Any]


Record = (
    Run
    | Stage
    | Progress
    | StageEnd
    | Samples
    | Epoch
    | Message
    | Note
    | Caution
    | LostRange
    | Retries
    | Death
    | Scores
    | End
    | Other
)

KINDS: dict[str, type[Any]] = {
    "run": Run,
    "stage": Stage,
    "progress": Progress,
    "stage_end": StageEnd,
    "samples": Samples,
    "epoch": Epoch,
    "message": Message,
    "note": Note,
    "warning": Caution,
    "loss": LostRange,
    "retries": Retries,
    "death": Death,
    "scores": Scores,
    "end": End,
}
_NAMES = {record: kind for kind, record in KINDS.items()}


def to_json(record: Record) -> dict[str, Any]:
    """The kind of a record and its facts, as JSON values."""
    if isinstance(record, Other):
        return {"kind": record.kind, **record.facts}
    return {"kind": _NAMES[type(record)], **asdict(record)}


def from_json(value: Mapping[str, Any]) -> Record:
    """The record that `to_json` gave; keys that it does not know are left out.

    Raises
    ------
    ValueError
        When a key is absent.
    """
    facts = {key: each for key, each in value.items() if key not in ("kind", "time", "version")}
    kind = value.get("kind")
    if not isinstance(kind, str):
        raise ValueError("it has no kind")  # noqa: TRY004  # a reader catches one error
    record = KINDS.get(kind)
    if record is None:
        return Other(kind, facts)
    needed = [each.name for each in fields(record) if each.default is MISSING]
    if absent := [name for name in needed if name not in facts]:
        raise ValueError(f"its {kind} lacks {', '.join(absent)}")
    names = {each.name for each in fields(record)}
    return record(**{key: each for key, each in facts.items() if key in names})  # type: ignore[no-any-return]
