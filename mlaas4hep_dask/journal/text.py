"""Records as lines that people read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from mlaas4hep_dask.journal.records import (
    Caution,
    Death,
    End,
    Epoch,
    LostRange,
    Message,
    Note,
    Progress,
    Record,
    Retries,
    Run,
    Samples,
    Scores,
    Stage,
    StageEnd,
)

NONE = "none"


def text(record: Record) -> str:
    """One line that tells a record."""
    match record:
        case Run():
            by = f": {record.command}" if record.command else ""
            return f"{record.verb} {record.name}, process {record.process} on {record.host}{by}"
        case Stage():
            return f"{record.stage} begins" + (
                f": {record.events:,} events" if record.events else ""
            )
        case Progress():
            of = f" of {record.total:,}" if record.total else ""
            return f"{record.stage}: {record.events:,}{of} events, {record.seconds:.0f} s"
        case StageEnd():
            return _stage_end(record)
        case Samples():
            return f"{record.stage}: {samples_text(record)}"
        case Epoch():
            return _epoch(record)
        case Message() | Note():
            return record.text
        case Caution():
            return f"WARNING: {record.text}"
        case LostRange():
            return _lost_range(record)
        case Retries():
            return f"{record.stage}: {record.attempts:,} attempts to read {record.file} failed"
        case Death():
            how = "was closed" if record.is_expected else "died"
            return f"worker {record.worker} {how}"
        case Scores():
            return f"scores: {record.path} ({record.form})"
        case End():
            return record.status + (f": {record.error}" if record.error else "")
    return f"{record.kind}: {dict(record.facts)}"


def _stage_end(record: StageEnd) -> str:
    if not record.is_complete:
        events = f", {record.events:,} events" if record.events else ""
        return f"{record.stage}: broken off after {record.seconds:.2f} s{events}"
    rate = f" ({record.events_per_second:,.0f} events/s)" if record.events else ""
    events = f"{record.events:,} events in " if record.events else ""
    return f"{record.stage}: {events}{record.seconds:.2f} s{rate}"


def samples_text(record: Samples) -> str:
    """The events of each sample."""
    return "; ".join(
        f"{name}: " + ", ".join(f"{number:,} {what}" for what, number in amounts.items())
        for name, amounts in record.samples.items()
    )


def _epoch(record: Epoch) -> str:
    parts = [f"epoch {record.epoch}/{record.epochs}"]
    for name in ("train", "validation"):
        split: Mapping[str, Any] = record.metrics.get(name) or {}
        loss, metric = four_digits(split.get("loss")), four_digits(split.get(record.key))
        parts.append(f"{name} loss {loss} {record.title} {metric}")
    parts.append(f"{record.metrics.get('events_per_second') or 0.0:,.0f} events/s")
    return ", ".join(parts)


def _lost_range(record: LostRange) -> str:
    if record.entry_stop is None:
        return f"skipped: {record.file} ({record.reason})"
    entries = f"{record.entry_start}-{record.entry_stop}"
    events = "" if record.num_events is None else f", {record.num_events:,} selected events"
    return f"lost in {record.stage}: {record.file}, entries {entries}{events} ({record.reason})"


def four_digits(value: float | None) -> str:
    """Four decimals, or ``none``."""
    return f"{value:.4f}" if value is not None and math.isfinite(value) else NONE
