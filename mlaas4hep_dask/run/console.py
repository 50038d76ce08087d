"""The closing table of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from mlaas4hep_dask.console import Console
from mlaas4hep_dask.report.headlines import metric_rows
from mlaas4hep_dask.report.quantities import input_text

MOST_WAYS = 3  # of normalisation in the table


class RunConsole(Console):
    """Prints the stages of a run and its closing table."""

    def conclude(self, summary: Mapping[str, Any], folder: Path) -> None:
        """Print the closing table of a run, and where report and model are.

        Parameters
        ----------
        summary : mapping of str to Any
            The content of metrics.json.
        folder : Path
            The run directory.
        """
        self.table(summary)
        self.say(f"report: {folder / 'report.html'}")
        self.say(f"serve it: {summary['serve']}")

    def table(self, summary: Mapping[str, Any]) -> None:
        """Print the closing table of a run."""
        counts, test = summary["counts"], summary["test"]
        unopened = sum(entry["entry_stop"] is None for entry in counts["skipped"])
        outside = sum(counts["out_of_range"].values())
        table = Table(title=f"run {summary['name']}", show_header=False)
        rows: Sequence[tuple[str, str]] = [
            ("events read", f"{counts['events_read']:,}"),
            *((f"lost by {cut['condition']}", f"{cut['lost']:,}") for cut in counts["cut_flow"]),
            ("events selected", f"{counts['events_selected']:,}"),
            *(
                (f"{name} objects removed", f"{number:,}")
                for name, number in counts["objects_removed"].items()
            ),
            ("events skipped", f"{counts['events_skipped']:,}"),
            *([("files that did not open", f"{unopened:,}")] if unopened else []),
            *(
                [("events lost in training", f"{num_lost:,}")]
                if (num_lost := counts["events_lost"])
                else []
            ),
            ("specs measured now", f"{counts['events_measured']:,} events"),
            ("specs from the cache", f"{counts['events_from_cache']:,} events"),
            ("specs", f"{counts['branches']} branches, {input_text(summary['model'])}"),
            ("normalisation", _normalisations(summary["encode"])),
            ("objects truncated", f"{sum(counts['truncated'].values()):,}"),
            *(
                (f"{name} outside image", f"{number:,}")
                for name, number in counts.get("off_image", {}).items()
            ),
            *(
                (f"{name} sharing a cell", f"{number:,}")
                for name, number in counts.get("shared_cell", {}).items()
            ),
            ("values not finite", f"{sum(counts['not_finite'].values()):,}"),
            *([("values out of range", f"{outside:,}")] if outside else []),
            ("epoch kept", f"{summary['kept_epoch']} of {len(summary['epochs'])}"),
            ("test events", f"{test['num_events']:,}"),
            *((f"test {name}", value) for name, value in metric_rows(summary)),
            *(
                (f"{stage['stage']}, events/s", f"{stage['events_per_second']:,.0f}")
                for stage in summary["stages"]
                if stage["events"]
            ),
        ]
        for name, value in rows:
            table.add_row(name, value)
        self.print(table)
        self.say_skipped(counts["skipped"])


def _normalisations(encode: Mapping[str, Any]) -> str:
    """How many branches are normalised in which way; the report says it of each."""
    ways = Counter(_way(text) for text in encode["normalisation"].values())
    most_common = ways.most_common(MOST_WAYS)
    rest = sum(ways.values()) - sum(num for _, num in most_common)
    text = ", ".join(
        [*(f"{num} {way}" for way, num in most_common), *([f"{rest} other"] if rest else [])]
    )
    ends = Counter(how.rpartition(" ")[2] for how in encode["normalisation"].values())
    roles = [f"{ends[role]} {role}" for role in ("missing", "apart", "far") if ends[role]]
    return f"{text}; placeholders: {', '.join(roles)}" if roles else text


def _way(text: str) -> str:
    short = text.removeprefix("auto: ").partition(",")[0]
    return "few values" if short.endswith(" values") else short
