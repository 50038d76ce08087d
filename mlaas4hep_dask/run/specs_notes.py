"""Where the specs of a run come from, and how sure they are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlaas4hep_dask.run.fill_notes import minmax_notes
from mlaas4hep_dask.specs import Specs
from mlaas4hep_dask.specs.precision import precision_notes

_OUTSIDE = {"clip": "clipped", "pass": "passed on"}


def specs_origin(specs: Specs, *, num_cached: int, path: str | Path | None) -> dict[str, int]:
    """How many events were measured in this run, and how many before.

    Parameters
    ----------
    specs : Specs
        Of the run.
    num_cached : int
        Events whose specs came from the cache.
    path : str or Path or None
        The file that the specs were taken from, if they were.
    """
    num_read = sum(sample.num_read for sample in specs.samples.values())
    return {
        "events_measured": 0 if path is not None else num_read - num_cached,
        "events_from_cache": num_cached,
    }


def specs_line(
    specs: Specs, *, num_cached: int, path: str | Path | None, notes: Sequence[str]
) -> str:
    """One line about the specs for the command line, with what `specs_notes` gives."""
    if path is not None:
        return f"specs of {specs.num_events:,} events taken from {path}"
    origin = specs_origin(specs, num_cached=num_cached, path=path)
    measured = (
        f"specs of {origin['events_measured']:,} events measured now, "
        f"{origin['events_from_cache']:,} from the cache"
    )
    return "; ".join([measured, *notes])


def specs_notes(
    specs: Specs, *, path: str | Path | None, normalisation: Any, out_of_range: Any
) -> list[str]:
    """What to know of specs and of what is made of them.

    Parameters
    ----------
    specs : Specs
        Of the run.
    path : str or Path or None
        The file that the specs were taken from, if they were.
    normalisation, out_of_range : str or mapping
        Those keys of the section ``encode``.
    """
    notes = []
    if path is not None:
        notes.append(f"the specs are those of {path}, of {specs.num_events:,} events")
    if specs.coverage < 1.0 and specs.branches:
        unseen = sorted(n for n, entry in specs.branches.items() if not entry.moments.num_finite)
        filled = [name for name in specs.branches if name not in unseen]  # others have a note below
        rest = dict.fromkeys(unseen, 0.0)
        name, outside = _worst({name: specs.outside(name) for name in filled} | rest)
        _, spread = _worst({name: _relative_error(specs, name) for name in filled} | rest)
        notes.append(
            f"the specs are those of a subset of {specs.coverage:.2%} of the events: up to "
            f"{outside:.2g} of the values are expected outside the range of {name}, means have "
            f"errors of up to {spread:.2g} standard deviations, and values outside are "
            f"{_OUTSIDE.get(str(out_of_range), 'clipped or passed on, by branch')}"
        )
        if unseen:
            more = f" and {len(unseen) - 5} more branches" if len(unseen) > 5 else ""
            notes.append(f"the subset of the specs has no value of {', '.join(unseen[:5])}{more}")
    of_precision = precision_notes(specs.branches.values())
    return [*notes, *of_precision, *minmax_notes(specs, normalisation)]


def _relative_error(specs: Specs, name: str) -> float:
    variance = specs.branches[name].variance
    return specs.mean_error(name) / variance**0.5 if variance else 0.0


def _worst(by_branch: dict[str, float]) -> tuple[str, float]:
    name = max(sorted(by_branch), key=lambda branch: by_branch[branch])
    return name, by_branch[name]
