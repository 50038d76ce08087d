"""Where the specs of a run come from, and how sure they are."""

from __future__ import annotations

from mlaas4hep_dask.dataset import Dataset
from mlaas4hep_dask.run.fill_notes import minmax_notes
from mlaas4hep_dask.specs.precision import precision_notes

_OUTSIDE = {"clip": "clipped", "pass": "passed on"}


def specs_counts(dataset: Dataset) -> dict[str, int]:
    """How many events were measured in this run, and how many before."""
    specs, num_cached = dataset.specs(), dataset.num_cached()
    num_read = sum(sample.num_read for sample in specs.samples.values())
    is_reused = dataset.config.specs.path is not None
    return {
        "events_measured": 0 if is_reused else num_read - num_cached,
        "events_from_cache": num_cached,
    }


def specs_line(dataset: Dataset) -> str:
    """One line about the specs for the command line."""
    config, counts = dataset.config.specs, specs_counts(dataset)
    if config.path is not None:
        return f"specs of {dataset.specs().num_events:,} events taken from {config.path}"
    found = (
        f"specs of {counts['events_measured']:,} events measured now, "
        f"{counts['events_from_cache']:,} from the cache"
    )
    return "; ".join([found, *specs_notes(dataset)])


def specs_notes(dataset: Dataset) -> list[str]:
    """What to know of specs and of what is made of them."""
    specs, config = dataset.specs(), dataset.config
    notes = []
    if config.specs.path is not None:
        notes.append(f"the specs are those of {config.specs.path}, of {specs.num_events:,} events")
    if specs.coverage < 1.0 and specs.branches:
        unseen = sorted(n for n, entry in specs.branches.items() if not entry.moments.num_finite)
        name, outside = _worst(dataset, "outside")
        _, spread = _worst(dataset, "mean")
        notes.append(
            f"the specs are those of a sample of {specs.coverage:.2%} of the events: up to "
            f"{outside:.2g} of the values are expected outside the range of {name}, means have "
            f"errors of up to {spread:.2g} standard deviations, and values outside are "
            f"{_OUTSIDE.get(str(config.encode.out_of_range), 'clipped or passed on, by branch')}"
        )
        if unseen:
            more = f" and {len(unseen) - 5} more branches" if len(unseen) > 5 else ""
            notes.append(f"the sample of the specs has no value of {', '.join(unseen[:5])}{more}")
    return [*notes, *precision_notes(specs.branches.values()), *minmax_notes(dataset)]


def _worst(dataset: Dataset, what: str) -> tuple[str, float]:
    specs = dataset.specs()
    found: dict[str, float] = {}
    for name, entry in specs.branches.items():
        if not entry.moments.num_finite:
            found[name] = 0.0  # a note of its own
        elif what == "outside":
            found[name] = specs.outside(name)
        else:
            found[name] = specs.mean_error(name) / entry.variance**0.5 if entry.variance else 0.0
    name = max(sorted(found), key=lambda branch: found[branch])
    return name, found[name]
