"""What Dask's scheduler knows of a batch cluster's workers; runs there, for the supervisor."""

from __future__ import annotations

from typing import Any

from distributed import Scheduler

from mlaas4hep_dask.waiting.groups import GROUPS, groups_of


# Dask passes the scheduler to functions that `Client.run_on_scheduler` runs there, by this name.
def survey(dask_scheduler: Scheduler) -> dict[str, Any]:
    """Names of workers, seconds that all have computed, and tasks of each group that could run.

    Returns
    -------
    dict
        ``names``, ``work`` and ``backlog`` as in `mlaas4hep_dask.cluster.batch.states.View`.
    """
    prefixes = dask_scheduler.task_prefixes.values()
    workers = dask_scheduler.workers.values()
    unassigned = len(dask_scheduler.queued) + len(dask_scheduler.unrunnable)
    return {
        "names": [str(worker.name) for worker in workers],
        "work": sum(prefix.all_durations.get("compute", 0.0) for prefix in prefixes),
        "backlog": {
            group: unassigned
            + sum(len(each.processing) for each in workers if group in groups_of(each.name))
            for group in GROUPS
        },
    }
