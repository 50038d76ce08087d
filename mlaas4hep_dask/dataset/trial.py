"""What the plan and the first events tell before anything is measured."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mlaas4hep_dask.dataset.plan import Plan
from mlaas4hep_dask.encode.split import event_ids, split_of
from mlaas4hep_dask.errors import TrainingError, UnreadableFileError
from mlaas4hep_dask.inputs.prepare import HEAD_EVENTS, prepare
from mlaas4hep_dask.journal import SPLITS
from mlaas4hep_dask.specs import BranchSpecs
from mlaas4hep_dask.specs.measure import measure
from mlaas4hep_dask.specs.precision import bits_beyond, may_differ_unseen, precision_notes

WIDE = ("int32", "uint32", "int64", "uint64", "float64")


def first_notes(plan: Plan) -> list[str]:
    """Notes on whole numbers that rows do not hold, by the first events of every sample."""
    names = tuple(branch.name for branch in plan.branches if branch.dtype in WIDE)
    if not names:
        return []
    specs: dict[str, BranchSpecs] = {}
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
        specs |= {
            name: entry
            for name, entry in branches.items()
            if bits_beyond(entry) or (may_differ_unseen(entry) and name not in specs)
        }
    return [f"the first events have {note}" for note in precision_notes(specs.values())]


def require_splits(plan: Plan, where: str) -> None:
    """Raise a TrainingError if training, validation or test will have no event.

    Which split an event is in follows from its file and entry; a selection can only leave fewer.
    The error begins with ``where``, the place of the key ``split``.
    """
    fractions, seed = plan.context.fractions, plan.context.seed
    total = np.zeros(3, dtype=np.int64)
    for part in plan.partitions:
        ids = event_ids(part.identity, part.entry_start, part.entry_stop)
        total += np.bincount(split_of(ids, fractions, seed=seed), minlength=3)
        if total.all():
            return
    for name, fraction, number in zip(SPLITS, fractions, total.tolist(), strict=True):
        if number == 0:
            raise TrainingError(
                f"{where}: the {name} split has no event: {fraction:.3g} of "
                f"{plan.num_events:,} events; give it a larger fraction, or more events",
                split=name,
            )
