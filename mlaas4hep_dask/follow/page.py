"""What ``status`` tells of a run: one screen of text, or the same as JSON values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

from mlaas4hep_dask.follow.jobs import Jobs
from mlaas4hep_dask.follow.standing import AT_WORK, Pace, Standing
from mlaas4hep_dask.journal import (
    Caution,
    Death,
    End,
    LostRange,
    Retries,
    Samples,
    StageEnd,
    text,
)

MAX_LINES = 5  # of epochs, cautions and lost ranges: the last ones
MAX_REASONS = 3
COUNTS = ("files", "events", "read", "selected")


def page(standing: Standing, jobs: Jobs | None, now: datetime) -> str:
    """How a run stands, on one screen.

    Parameters
    ----------
    standing : Standing
        From `look`.
    jobs : Jobs or None
        Of its cluster, if it has any.
    now : datetime
        When it is told.
    """
    parts = [
        _head(standing, now),
        _stages(standing, now),
        _samples(standing),
        _last("epochs", [text(epoch) for epoch in standing.records.epochs]),
        _last("cautions", cautions_of(standing)),
        _last("lost", [text(lost) for lost in standing.records.of(LostRange)]),
        _troubles(standing),
        _jobs(jobs),
    ]
    return "\n".join("\n".join(part) for part in parts if part)


def as_json(standing: Standing, jobs: Jobs | None) -> dict[str, Any]:
    """The same for programs; times are ISO 8601 in UTC."""
    run, pace, records = standing.run, standing.pace, standing.records
    ends = records.of(End)
    return {
        "folder": str(standing.folder),
        "name": None if run is None else run.name,
        "state": standing.state,
        "is_here": standing.is_here,
        "error": ends[-1].error if ends and standing.state in ("failed", "interrupted") else "",
        "exit_status": ends[-1].exit_status if ends and standing.state not in AT_WORK else None,
        "earlier": standing.earlier,
        "host": None if run is None else run.host,
        "process": None if run is None else run.process,
        "verb": None if run is None else run.verb,
        "command": None if run is None else run.command,
        "began": _iso(standing.latest[0].time) if standing.latest else None,
        "last_sign": _iso(standing.sign),
        "stage": None if pace is None else _pace_json(pace),
        "stages": [end.as_json() for end in _ended_stages(standing)],
        "samples": _counts_of_samples(standing),
        "epochs": [dict(epoch.metrics) for epoch in records.epochs],
        "num_epochs": records.epochs[-1].epochs if records.epochs else None,
        "cautions": cautions_of(standing),
        "lost": [text(lost) for lost in records.of(LostRange)],
        "retries": _retries(standing),
        "deaths": [death.worker for death in records.of(Death) if not death.is_expected],
        "head": None if standing.head is None else vars(standing.head).copy(),
        "jobs": None if jobs is None else _jobs_json(jobs),
    }


def cautions_of(standing: Standing) -> list[str]:
    """Warnings of the last process, each once, in the order of their last time."""
    lines: dict[str, None] = {}
    for entry in standing.latest:
        if isinstance(entry.record, Caution):
            line = entry.record.text.partition("\n")[0]
            lines.pop(line, None)
            lines[line] = None
    return list(lines)


def fate(standing: Standing, now: datetime) -> str:
    """The state of a run, in words."""
    run, records, head = standing.run, standing.records, standing.head
    where = "" if run is None else f"process {run.process} on {run.host}"
    ago = "" if standing.sign is None else f"the last sign of life is {_ago(standing.sign, now)}"
    error = records.of(End)[-1].error if records.of(End) else ""
    last = records.entries[-1].time if records.entries else now
    why = ""
    if head is not None and standing.state in ("killed", "interrupted") and run is not None:
        words = head.reason().removeprefix("gone ")
        why = f", with {head.title}" + (f" ({words})" if words else "")
    match standing.state:
        case "queued":
            assert head is not None
            reason = head.reason()
            return f"has not begun: {head.title}" + (f" ({reason})" if reason else "")
        case "running":
            began = standing.latest[0].time
            return f"running for {duration((now - began).total_seconds())}, {where}; {ago}"
        case "silent":
            return f"silent: {where} may have gone without a word; {ago}"
        case "killed" if run is None:
            assert head is not None
            return f"killed: {head.title} ended before the run began; see {head.log}"
        case "killed":
            return f"killed: {where} is gone without a word{why}; {ago}; {again(standing)}"
        case "complete":
            return f"complete since {clock(last, now)}"
        case "failed":
            return f"failed {_ago(last, now)}: {error}"
        case "interrupted":
            return f"interrupted {_ago(last, now)}{why}; {again(standing)}"
        case "moved":
            return f"not taken up ({error}): another run went on beside this folder"


def again(standing: Standing) -> str:
    """What the same command does after one that did not come to its end."""
    if standing.run is not None and standing.run.verb == "predict":
        return "nothing was written, and the same command begins anew"
    return "the same command takes the run up again"


def duration(seconds: float) -> str:
    """A time in its two largest units."""
    seconds = max(0, round(seconds))
    units = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))
    for (size, name), (next_size, next_name) in pairwise(units):
        if seconds >= size:
            rest = seconds % size // next_size
            return f"{seconds // size} {name}" + (f" {rest} {next_name}" if rest else "")
    return f"{seconds} s"


def clock(time: datetime, now: datetime) -> str:
    """A time as a clock here shows it, with the day unless it is today."""
    local = time.astimezone()
    form = "%H:%M:%S" if local.date() == now.astimezone().date() else "%Y-%m-%d %H:%M:%S"
    return local.strftime(form)


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows in columns; the first column begins at the left, numbers end at the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _head(standing: Standing, now: datetime) -> list[str]:
    run = standing.run
    name = standing.folder.name if run is None else run.name
    lines = [f"{name}: {fate(standing, now)}"]
    if run is not None and run.command:
        lines.append(f"  {run.command}")
    if standing.earlier:
        lines.append(f"  an earlier run lies in {standing.folder}: {standing.earlier}")
    return lines


def _stages(standing: Standing, now: datetime) -> list[str]:
    lines = [f"  {text(end)}" for end in _ended_stages(standing)]
    pace = standing.pace
    if pace is not None:
        lines.append(f"  {_pace(pace, standing, now)}")
    return ["stages", *lines] if lines else []


def _ended_stages(standing: Standing) -> list[StageEnd]:
    ends = [each.record for each in standing.latest if isinstance(each.record, StageEnd)]
    return [end for end in ends if end.is_complete]


def _pace(pace: Pace, standing: Standing, now: datetime) -> str:
    events = f"{pace.events:,}" + (f" of {pace.total:,}" if pace.total else "") + " events"
    share = f" ({100 * pace.events / pace.total:.0f} %)" if pace.total else ""
    parts = [f"{pace.stage}: {events}{share}" if pace.events or pace.total else pace.stage]
    if pace.events_per_second:
        parts.append(f"{pace.events_per_second:,.0f} events/s")
    if standing.state not in AT_WORK:
        parts.append("broken off")
    else:
        parts.append(f"for {duration((now - pace.began).total_seconds())}")
        if pace.end is not None and pace.end > now:
            remaining = duration((pace.end - now).total_seconds())
            parts.append(f"ends at about {clock(pace.end, now)} (in {remaining})")
    return ", ".join(parts)


def _counts_of_samples(standing: Standing) -> dict[str, dict[str, int]]:
    amounts: dict[str, dict[str, int]] = {}
    for record in standing.records.of(Samples):
        for name, numbers in record.samples.items():
            amounts.setdefault(name, {}).update(numbers)
    return amounts


def _samples(standing: Standing) -> list[str]:
    amounts = _counts_of_samples(standing)
    if not amounts:
        return []
    rows = [["samples", *COUNTS]]
    for name, numbers in amounts.items():
        texts = (f"{numbers[key]:,}" if key in numbers else "" for key in COUNTS)
        rows.append([f"  {name}", *texts])
    return table(rows)


def _last(title: str, lines: Sequence[str]) -> list[str]:
    if not lines:
        return []
    tail = lines[-MAX_LINES:]
    more = f", the last {len(tail)}" if len(tail) < len(lines) else ""
    return [f"{title} ({len(lines)}{more})", *(f"  {line}" for line in tail)]


def _retries(standing: Standing) -> dict[str, int]:
    retries: Counter[str] = Counter()
    for each in standing.records.of(Retries):
        retries[each.file] += each.attempts
    return dict(retries)


def _troubles(standing: Standing) -> list[str]:
    retries = _retries(standing)
    deaths = [death for death in standing.records.of(Death) if not death.is_expected]
    lines = []
    if retries:
        lines.append(f"{sum(retries.values()):,} attempts to read failed, at {len(retries)} files")
    if deaths:
        lines.append(f"{len(deaths)} workers died")
    return lines


def _jobs(jobs: Jobs | None) -> list[str]:
    if jobs is None:
        return []
    source = "" if jobs.is_asked else ", as the records tell"
    lines = [f"jobs of {jobs.driver.system}, site {jobs.driver.site}{source}"]
    for group, states in _by_group(jobs).items():
        states_text = ", ".join(f"{number} {state}" for state, number in states.items())
        lines.append(f"  {group}: {states_text}")
    if jobs.records.num_refused:
        lines.append(f"  {jobs.records.num_refused} refused")
    reasons = Counter(
        f"{job.state}: {job.reason}"
        for job in jobs.records.jobs
        if job.reason and job.state in ("pending", "suspended", "held")
    )
    for reason, number in reasons.most_common(MAX_REASONS):
        lines.append(f"  {number} {reason}")
    if jobs.records.trouble:
        lines.append(f"  {jobs.records.trouble}")
    for cluster in jobs.earlier:
        known = "" if cluster.is_asked else ", as the records tell"
        ids = " ".join(job.id for job in cluster.left)
        lines.append(f"  of {cluster.folder.name} {len(cluster.left)} are left{known}: {ids}")
    return lines


def _by_group(jobs: Jobs) -> dict[str, dict[str, int]]:
    by_group: dict[str, dict[str, int]] = {}
    for job in jobs.records.jobs:
        states = by_group.setdefault(job.group, {})
        states[job.state] = states.get(job.state, 0) + 1
    return by_group


def _jobs_json(jobs: Jobs) -> dict[str, Any]:
    return {
        "system": jobs.driver.system,
        "site": jobs.driver.site,
        "host": jobs.driver.host,
        "is_asked": jobs.is_asked,
        "groups": _by_group(jobs),
        "refused": jobs.records.num_refused,
        "trouble": jobs.records.trouble,
        "jobs": [vars(job).copy() for job in jobs.records.jobs],
        "earlier": [vars(job).copy() for each in jobs.earlier for job in each.left],
    }


def _pace_json(pace: Pace) -> dict[str, Any]:
    return {
        "stage": pace.stage,
        "began": _iso(pace.began),
        "events": pace.events,
        "total": pace.total,
        "events_per_second": pace.events_per_second,
        "expected_end": _iso(pace.end),
    }


def _iso(time: datetime | None) -> str | None:
    return None if time is None else time.astimezone(UTC).isoformat(timespec="seconds")


def _ago(time: datetime, now: datetime) -> str:
    return f"{duration((now - time).total_seconds())} ago"
