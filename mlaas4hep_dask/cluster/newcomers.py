"""Sends workers away that join a running cluster with other versions than ours."""

from __future__ import annotations

import asyncio
import logging
import pkgutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from distributed import Client, Worker, WorkerPlugin

from mlaas4hep_dask.cluster.reach import own_versions, shortened
from mlaas4hep_dask.waiting.waits import asked

logger = logging.getLogger(__name__)

TOPIC = "mlaas4hep_dask-other-versions"
HOLD = 10.0  # seconds in which a client that is there answers; without one a worker may work
GOODBYE = 5.0  # seconds for a scheduler to hear that nobody asks any more


class _Versions(WorkerPlugin):  # type: ignore[misc]  # untyped there
    """Lets a worker compare its versions before it takes a task, and tell of those that differ.

    A worker that cannot even load this, for want of the package, does not start.
    """

    def __init__(self, name: str, expected: Mapping[str, tuple[str, str]]) -> None:
        self.name = name
        self._expected = dict(expected)

    async def setup(self, worker: Worker) -> None:
        for what, (place, version) in self._expected.items():
            here = shortened(what, str(pkgutil.resolve_name(place)))
            if here != version:
                facts = {"worker": worker.address, "name": str(worker.name), "host": worker.ip}
                worker.log_event(TOPIC, {**facts, "text": f"{what} {here}", "here": version})
                await asyncio.sleep(HOLD)  # the client sends it away meanwhile
                return


@contextmanager
def same_versions_of_newcomers(client: Client) -> Iterator[None]:
    """While the context lives, workers that join with other versions are sent away, with words.

    They are told to end, and what they would have computed is computed elsewhere. Those that are
    there already are looked at by `mlaas4hep_dask.cluster.reach.require_same_versions`.
    """
    expected = {name: (place, shortened(name, v)) for name, place, v in own_versions()}
    plugin = _Versions(f"{TOPIC}-{client.id}", expected)
    leaving: set[asyncio.Task[Any]] = set()

    def refuse(event: tuple[float, Mapping[str, str]]) -> None:
        message = event[1]
        logger.warning(
            "worker %s (name %s, host %s) joined with %s, and this process has %s: it is sent "
            "away; the workers have to run the same environment",
            *(message[key] for key in ("worker", "name", "host", "text", "here")),
        )
        retire = client.scheduler.retire_workers(workers=[message["worker"]], close_workers=True)
        task = asyncio.ensure_future(retire)
        leaving.add(task)  # else nothing would refer to it
        task.add_done_callback(_taken)
        task.add_done_callback(leaving.discard)

    client.subscribe_topic(TOPIC, refuse)
    asked(client, lambda: _registered(client, plugin), "telling workers which versions we have")
    try:
        yield
    finally:
        with suppress(TimeoutError, OSError, RuntimeError, AttributeError, LookupError, ValueError):
            client.unsubscribe_topic(TOPIC)  # a scheduler that has stopped need not hear it
            if client.status == "running":
                forget = client.scheduler.unregister_worker_plugin
                client.sync(forget, name=plugin.name, callback_timeout=GOODBYE)


async def _registered(client: Client, plugin: WorkerPlugin) -> None:
    with suppress(OSError):  # a worker is leaving; the scheduler keeps it for those to come
        await client.register_plugin(plugin)


def _taken(task: asyncio.Task[Any]) -> None:
    """Take the error of a task, of a scheduler that has gone meanwhile."""
    if not task.cancelled():
        task.exception()
