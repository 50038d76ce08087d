"""What the journal tells of each sample: files and events of the plan, events of the specs."""

from __future__ import annotations

from mlaas4hep_dask.dataset.plan import Plan
from mlaas4hep_dask.journal import Samples
from mlaas4hep_dask.specs import Specs


def planned(plan: Plan) -> Samples:
    """Files and events of each sample, as planned."""
    amounts = {file.sample: {"files": 0, "events": 0} for file in plan.files}
    for file in plan.files:
        amounts[file.sample]["files"] += 1
    for part in plan.partitions:
        amounts[part.sample]["events"] += part.entry_stop - part.entry_start
    return Samples("plan", amounts)


def measured(specs: Specs) -> Samples:
    """Events of each sample that were read, and those that were selected."""
    return Samples(
        "specs",
        {
            name: {"read": sample.num_read, "selected": sample.num_selected}
            for name, sample in specs.samples.items()
        },
    )
