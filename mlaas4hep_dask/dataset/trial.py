"""What the first events tell of inputs before a cluster is started, for ``--check``."""

from __future__ import annotations

from dataclasses import replace

from mlaas4hep_dask.dataset.plan import Plan
from mlaas4hep_dask.dataset.prepare import HEAD_EVENTS, prepare
from mlaas4hep_dask.errors import UnreadableFileError
from mlaas4hep_dask.specs import BranchSpecs
from mlaas4hep_dask.specs.measure import measure
from mlaas4hep_dask.specs.precision import bits_beyond, precision_notes

WIDE = ("int32", "uint32", "int64", "uint64", "float64")


def first_notes(plan: Plan) -> list[str]:
    """Notes on whole numbers that rows do not hold, by the first events of every sample."""
    names = tuple(branch.name for branch in plan.branches if branch.dtype in WIDE)
    if not names:
        return []
    found: dict[str, BranchSpecs] = {}
    for sample in plan.samples:
        first = next((part for part in plan.partitions if part.sample == sample), None)
        if first is None:
            continue
        stop = min(first.entry_stop, first.entry_start + HEAD_EVENTS)
        try:
            events = prepare(replace(first, entry_stop=stop), plan.preparation, names).events
        except UnreadableFileError:  # the plan tells, or the run will
            continue
        branches = measure(events, sample=sample).branches
        found |= {name: entry for name, entry in branches.items() if bits_beyond(entry)}
    return [f"the first events have {note}" for note in precision_notes(found.values())]
