"""The report of a run as one HTML page that needs no network, no JavaScript and no other file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jinja2

from mlaas4hep_dask.journal import SPLITS
from mlaas4hep_dask.report.axes import NOT_XML
from mlaas4hep_dask.report.charts import inputs, learning_curves, multiplicities
from mlaas4hep_dask.report.figures import bar
from mlaas4hep_dask.report.headlines import objective_of
from mlaas4hep_dask.report.mean_images import mean_images
from mlaas4hep_dask.report.quantities import (
    DASH,
    count,
    difference,
    fixed,
    is_number,
    mapping,
    number,
    ratio,
    rounded,
    seed_text,
    sequence,
    total,
)
from mlaas4hep_dask.report.results import results
from mlaas4hep_dask.specs import BranchSpecs, Specs
from mlaas4hep_dask.specs.precision import bits_beyond

NUM_SHOWN = 12  # input distributions in front of the fold


def render_page(
    summary: Mapping[str, Any],
    specs: Specs,
    distributions: Mapping[str, Any],
    images: Mapping[str, Any] | None = None,
) -> str:
    """Text of report.html.

    Parameters
    ----------
    summary : mapping of str to Any
        What the run did, in plain JSON values. Of a run that stopped early any key may be
        missing: the page then says "not recorded", or shows an en dash in place of a number.
    specs : Specs
        Specs of the data set.
    distributions : mapping of str to Any
        ``num_events``, and ``branches``: by name the histograms ``raw`` and ``encoded`` of the
        values before and after encoding, each with ``edges`` and ``counts`` by label.
    images : mapping of str to Any, optional
        Mean images by label and what their cells mean, of a run with images.

    Returns
    -------
    str
        A page that can be encoded as UTF-8, whatever characters the names hold.
    """
    counts = mapping(summary, "counts")
    labels = _label_names(summary)
    outcome = {**results(summary), **_headline_metric(summary)}
    branches = inputs(specs, distributions, labels)
    text = _template().render(
        summary=summary,
        labels=labels,
        headline=_headline(summary),
        flow=_flow(counts),
        num_unknown=sum(_num_entries(entry) is None for entry in sequence(counts, "skipped")),
        splits=_splits(sequence(summary, "samples")),
        stages=_stages(sequence(summary, "stages")),
        learning=learning_curves(
            sequence(summary, "epochs"), (str(outcome["key"]), str(outcome["metric"]))
        ),
        results=outcome,
        specs=_spec_rows(specs, mapping(mapping(summary, "encode"), "normalisation")),
        num_selected=specs.num_events,
        coverage=specs.coverage,
        multiplicities=multiplicities(specs, counts, mapping(summary, "encode")),
        images=mean_images(images or {}, counts, labels),
        num_events=distributions.get("num_events"),
        shown=branches[:NUM_SHOWN],
        folded=branches[NUM_SHOWN:],
        left_out=_by_reason(mapping(counts, "left_out")),
        versions=mapping(summary, "versions") or mapping(specs.provenance, "versions"),
    )
    return NOT_XML.sub("\ufffd", text)


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,  # names come from users' files
        undefined=jinja2.ChainableUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "count": count,
        "fixed": fixed,
        "num_entries": _num_entries,
        "number": number,
        "rounded": rounded,
        "seed_text": seed_text,
        "total": total,
    }
    return environment.get_template("report.html.jinja")


def _num_entries(skipped: Mapping[str, Any]) -> Any:
    return difference(skipped.get("entry_stop"), skipped.get("entry_start"))


def _label_names(summary: Mapping[str, Any]) -> dict[str, str]:
    """By label: the label and the samples that carry it, or the class; else the samples."""
    samples = sequence(summary, "samples")
    if not objective_of(summary).classes:
        return {str(sample.get("name")): str(sample.get("name")) for sample in samples}
    if samples and all(sample.get("label") is None for sample in samples):
        classes = sequence(summary, "classes")
        return {str(entry["label"]): f"{entry['label']}: {entry['name']}" for entry in classes}
    names: dict[str, list[str]] = {}
    for sample in samples:
        if (value := sample.get("label")) is None:
            continue
        key = f"{value:g}" if isinstance(value, int | float) else str(value)
        names.setdefault(key, []).append(str(sample.get("name", DASH)))
    return {key: f"{key}: {', '.join(names[key])}" for key in sorted(names)}


def _headline_metric(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Key and name of the metric that a journal shows, of a run that says no more."""
    headline = mapping(summary, "headline")
    return {"key": headline["key"], "metric": headline["title"]} if headline else {}


def _headline(summary: Mapping[str, Any]) -> dict[str, Any]:
    seconds = total(stage.get("seconds") for stage in sequence(summary, "stages"))
    counts = mapping(summary, "counts")
    return {
        "num_read": counts.get("events_read"),
        "num_selected": counts.get("events_selected"),
        "seconds": seconds,
        "rate": ratio(counts.get("events_read"), seconds),
    }


def _flow(counts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What became of the planned events, one row per fate."""
    num_read, selected = counts.get("events_read"), counts.get("events_selected")
    skipped = counts.get("events_skipped")
    planned = total((num_read, skipped))
    rejected = difference(num_read, selected)
    rows = [
        ("planned", planned, "in the files of all samples", 5),
        ("skipped", skipped, "could not be read and are lost to this run", 1),
        ("read", num_read, "reached the selection", 5),
        ("not selected", rejected, "removed by the selection", 5),
        ("selected", selected, "measured, encoded and split", 0),
    ]
    return [
        {
            "name": name,
            "events": events,
            "meaning": meaning,
            "percent": None if (share := ratio(events, planned)) is None else 100 * share,
            "bar": bar(share, colour=colour),
        }
        for name, events, meaning, colour in rows
    ]


def _splits(samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Totals of the samples table, and the selected events that no split holds."""
    keys = ("files", "num_read", "num_selected", "sum_weights", *SPLITS)
    totals = {key: total(sample.get(key) for sample in samples) for key in keys}
    unsplit = difference(totals["num_selected"], total(totals[name] for name in SPLITS))
    return {"totals": totals, "unsplit": unsplit}


def _stages(stages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    def largest(key: str) -> float | None:
        return max((s[key] for s in stages if is_number(s.get(key))), default=None)

    slowest, fastest = largest("seconds"), largest("events_per_second")
    rows = []
    for stage in stages:
        # Of a stage that goes through no events the rate says nothing.
        counted = {} if stage.get("events") else {"events": None, "events_per_second": None}
        row = {**stage, **counted}
        row["time_bar"] = bar(ratio(row.get("seconds"), slowest), colour=5)
        row["rate_bar"] = bar(ratio(row.get("events_per_second"), fastest))
        rows.append(row)
    return rows


def _spec_rows(specs: Specs, normalisation: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Flat branches, then the jagged ones by collection."""

    def place(entry: BranchSpecs) -> tuple[str, str]:
        return entry.branch.collection or "", entry.branch.name

    rows = []
    for entry in sorted(specs.branches.values(), key=place):
        collection, variance = entry.branch.collection, entry.variance
        has_histogram = collection is not None and collection in specs.multiplicities
        flag = "constant" if entry.is_constant else "no finite value" if entry.min is None else ""
        if (bits := bits_beyond(entry)) is not None:
            flag = f"beyond 2^{bits}"
        rows.append(
            {
                "branch": entry.branch,
                "moments": entry.moments,
                "normalisation": normalisation.get(entry.branch.name),
                "mean": entry.mean,
                "std": None if variance is None else math.sqrt(variance),
                "max_multiplicity": specs.max_multiplicity(collection or "")
                if has_histogram
                else None,
                "outside": specs.outside(entry.branch.name),
                "mean_error": specs.mean_error(entry.branch.name),
                "flag": flag,
            }
        )
    return rows


def _by_reason(left_out: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """Branches that cannot be inputs, the most frequent reason first."""
    names: dict[str, list[str]] = {}
    for name, reason in sorted(left_out.items()):
        names.setdefault(str(reason), []).append(name)
    return sorted(names.items(), key=lambda entry: (-len(entry[1]), entry[0]))
