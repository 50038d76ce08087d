"""What the report tells of a run that has not ended, or never will: the records of its journal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC
from typing import Any

from mlaas4hep_dask import journal
from mlaas4hep_dask.journal import Records
from mlaas4hep_dask.specs import Specs

_FATES = {
    "running": "The run has not ended: it is at work, or was killed.",
    "complete": "The run has ended, but its numbers are not here.",
    "failed": "The run has failed.",
    "interrupted": "The run was interrupted; the same command takes it up again.",
    "moved": "This run was not taken up again; another goes on beside this folder.",
}


def summary_so_far(
    records: Records, plan_record: Mapping[str, Any] | None, specs: Specs | None
) -> dict[str, Any]:
    """The summary of a run as far as it has come, with ``fate``: how it stands.

    Parameters
    ----------
    records : Records
        Of the journal.
    plan_record : mapping of str to Any or None
        The content of plan.json, once there is one.
    specs : Specs or None
        Those of the run, once there are any.
    """
    runs = records.of(journal.Run)
    lost_ranges = records.of(journal.LostRange)
    in_training = [lost for lost in lost_ranges if lost.num_events is not None]
    before = [lost for lost in lost_ranges if lost.num_events is None]
    retries: dict[str, int] = {}
    for each in records.of(journal.Retries):
        retries[each.file] = retries.get(each.file, 0) + each.attempts
    stages = {end.stage: end for end in records.of(journal.StageEnd) if end.is_complete}
    summary: dict[str, Any] = {
        "fate": _fate(records),
        "stages": [end.as_json() for end in stages.values()],
        "epochs": [dict(epoch.metrics) for epoch in records.epochs],
        "counts": {
            **({"skipped": [asdict(lost) for lost in before]} if before or specs else {}),
            "lost": [asdict(lost) for lost in in_training],
            "events_lost": sum(lost.num_events or 0 for lost in in_training),
            "retries": retries,
            "notes": _notes(records),
            **_counts_of_plan(plan_record or {}),
            **_counts_of_specs(specs),
        },
    }
    if runs:
        begin = next(
            entry.time for entry in records.entries if isinstance(entry.record, journal.Run)
        )
        summary |= {
            "name": runs[-1].name,
            "package": runs[-1].package,
            "command": runs[-1].command,
            "created": begin.astimezone(UTC).isoformat(timespec="seconds"),
        }
    if records.epochs:
        last = records.epochs[-1]
        summary["headline"] = {"key": last.key, "title": last.title}
    return summary


def _counts_of_plan(plan_record: Mapping[str, Any]) -> dict[str, Any]:
    keys = ("left_out", "excluded", "targets", "weights", "identifiers")
    lengths = {key: len(plan_record[key]) for key in ("files", "partitions") if key in plan_record}
    return lengths | {key: plan_record[key] for key in keys if key in plan_record}


def _counts_of_specs(specs: Specs | None) -> dict[str, Any]:
    """Events read and selected, where the specs are those of all."""
    if specs is None or specs.coverage < 1.0:
        return {}
    return {
        "events_read": sum(sample.num_read for sample in specs.samples.values()),
        "events_selected": specs.num_events,
    }


def _fate(records: Records) -> str:
    text = _FATES.get(records.status, records.status)
    ends = records.of(journal.End)
    if records.status == "failed" and ends:
        text = f"{text[:-1]}: {ends[-1].error}"
    if records.entries:
        time = records.entries[-1].time.astimezone(UTC)
        text += f" Its last record, of {time:%Y-%m-%d %H:%M:%S} UTC: "
        text += journal.text(records.entries[-1].record)
    return text


def _notes(records: Records) -> list[str]:
    """Notes, warnings and deaths, each once."""
    kinds = (journal.Note, journal.Caution, journal.Death)
    return list(dict.fromkeys(journal.text(each) for each in records if isinstance(each, kinds)))
