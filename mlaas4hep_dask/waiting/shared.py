"""Values that many tasks refer to, sent to a cluster once, in a task that does nothing else."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import Any, TypeVar

from distributed import Client, Future
from distributed.scheduler import KilledWorker

PREFIX = "shared"

T = TypeVar("T")


def shared_key(token: str) -> str:
    """The key of a task that gives a shared value.

    Such a task does nothing at which a worker could die. It is counted among those that a dying
    worker had before it all the same, and after some deaths Dask gives it up, and with it all
    tasks that refer to it: `gather` then lets it run again.
    """
    return f"{PREFIX}-{token}"


def share(client: Client, value: Any, token: str = "") -> Future:
    """A future of a value, for tasks to refer to; made again elsewhere if its worker dies."""
    return client.submit(same, value, key=shared_key(token or uuid.uuid4().hex))


def same(value: T) -> T:
    """The value."""
    return value


def is_given_up(error: BaseException | None) -> bool:
    """True for the error of tasks whose shared value was given up."""
    return isinstance(error, KilledWorker) and str(error.task).startswith(f"{PREFIX}-")


async def run_again(client: Client, futures: Iterable[Future]) -> None:
    """Have tasks that were given up run again, and those that they refer to.

    `Client.retry` does the same, and fails where what is referred to has no future any more, as a
    shared value of which this process has forgotten its own.
    """
    keys = list({future.key for future in futures})
    for key in await client.scheduler.retry(keys=keys, client=client.id):
        if state := client.futures.get(key):
            state.retry()
