"""What Dask's scheduler knows of a batch cluster's workers; runs there, for the supervisor."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from distributed import Scheduler

from mlaas4hep_dask.places import GROUPS
from mlaas4hep_dask.waiting.groups import groups_of

SMALL = 10 * 2**20  # bytes of results: what all workers hold, such as what tasks share


# Dask passes the scheduler to functions that `Client.run_on_scheduler` runs there, by this name.
def survey(dask_scheduler: Scheduler, *, topic: str) -> dict[str, Any]:
    """Names of workers, how much they have done, and tasks of each group that could run.

    Parameters
    ----------
    dask_scheduler : Scheduler
        Where it runs.
    topic : str
        Of Dask's events, under which long tasks, such as ranks, log that they have done something.

    Returns
    -------
    dict
        ``work`` and ``backlog`` as in `mlaas4hep_dask.cluster.batch.supervisor.Workers`; ``names``
        and ``idle`` are those of workers. Work is the seconds that ended tasks
        took, and the time of the last event.
    """
    prefixes = dask_scheduler.task_prefixes.values()
    events = dask_scheduler.get_events(topic)
    workers = dask_scheduler.workers.values()
    unassigned = len(dask_scheduler.queued) + len(dask_scheduler.unrunnable)
    return {
        "names": [str(worker.name) for worker in workers],
        "work": sum(prefix.all_durations.get("compute", 0.0) for prefix in prefixes)
        + (events[-1][0] if events else 0.0),
        "backlog": {
            group: unassigned
            + sum(len(each.processing) for each in workers if group in groups_of(each.name))
            for group in GROUPS
        },
        "idle": [str(each.name) for each in workers if not each.processing and each.nbytes < SMALL],
    }


def by_job(names: Iterable[str], processes: Mapping[str, int]) -> Counter[str]:
    """How many workers of each job there are.

    Parameters
    ----------
    names : iterable of str
        Of workers. Where a job has several, theirs is its own with a number behind it.
    processes : mapping of str to int
        By group: workers of a job.
    """
    several = tuple(f"{group}-" for group, number in processes.items() if number > 1)
    return Counter(name.rpartition("-")[0] if name.startswith(several) else name for name in names)
