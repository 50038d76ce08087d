"""Groups of workers, and how tasks of one group are kept from the workers of another.

A worker of a group offers a resource of Dask's that is called like the group, one for each of its
threads, and tasks of the group take one. So workers that come later, or again, get their share,
which a list of addresses would not give them.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from distributed import Client, Scheduler, SchedulerPlugin, Worker, WorkerPlugin

from mlaas4hep_dask.places import GROUPS, Group

PREFIX = "mlaas4hep_dask-"


def groups_of(name: object) -> tuple[Group, ...]:
    """The groups of a worker with a name."""
    prefixed = tuple(group for group in GROUPS if str(name).startswith(f"{group}-"))
    return prefixed or GROUPS


def is_of(info: Mapping[str, Any], group: Group) -> bool:
    """True when a worker, of which the scheduler says this, is of a group."""
    return group in groups_of(info.get("name", ""))


def needed(group: Group) -> dict[str, float]:
    """What a task of a group takes of its worker."""
    return {f"{PREFIX}{group}": 1}


def offered(name: object, num_threads: int) -> dict[str, float]:
    """What a worker offers to tasks of its groups."""
    return {f"{PREFIX}{group}": num_threads for group in groups_of(name)}


class _OffersOfWorkers(WorkerPlugin):  # type: ignore[misc]  # untyped there
    """Lets workers, those that come later too, count what their tasks take."""

    name = f"{PREFIX}offers-of-workers"
    idempotent = True

    async def setup(self, worker: Worker) -> None:
        await worker.set_resources(**offered(worker.name, worker.state.nthreads))


class _OffersOfScheduler(SchedulerPlugin):  # type: ignore[misc]  # untyped there
    """Lets the scheduler know what a worker offers as soon as it comes.

    It gives a new worker the tasks that waited for one only at that moment, which is before the
    worker itself can say what it offers.
    """

    name = f"{PREFIX}offers-of-scheduler"
    idempotent = True

    def add_worker(self, scheduler: Scheduler, worker: str) -> None:
        state = scheduler.workers[worker]
        scheduler.add_resources(worker, offered(state.name, state.nthreads))


async def separate(client: Client) -> None:
    """Let all workers of a cluster, those that come later too, offer what their groups' tasks take.

    It may be asked for more than once.
    """
    await client.register_plugin(_OffersOfScheduler())
    with suppress(OSError):  # a worker is leaving; the scheduler keeps it for those to come
        await client.register_plugin(_OffersOfWorkers())
