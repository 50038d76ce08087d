"""Who lives on a cluster, and what was last known of those that do not."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from distributed import Client

from mlaas4hep_dask.errors import ClusterError, MLaaSError
from mlaas4hep_dask.waiting.events import events_of
from mlaas4hep_dask.waiting.lifetimes import ended_in_order
from mlaas4hep_dask.waiting.local import Processes
from mlaas4hep_dask.waiting.patience import PATIENCE, Patience

# Seconds after which it is told that a scheduler, which may be busy, does not answer; then it is
# asked again.
ANSWER_TIMEOUTS = (5.0, 15.0, 20.0, 20.0)
ENDED_FOR_MEMORY = "worker-restart-memory"  # topic under which nannies tell it
MUCH = 0.7  # of its memory limit, with which a worker that left was perhaps ended for memory


logger = logging.getLogger("mlaas4hep_dask.waiting")


class LostWorkerError(ClusterError):
    """A worker that alone could do something has left (facts: workers)."""


@dataclass
class Workers:
    """What is known of the workers of a cluster; made by `workers_of`.

    Parameters
    ----------
    facts : dict of str to mapping
        By address: what the scheduler last said of every worker that was ever seen.
    heard : dict of str to float
        By address: when, by this machine's clock, a worker's last sign of life was new.
    processes : Processes
        Those of a local cluster's workers.
    is_silent : bool
        The scheduler did not answer when it was last asked.
    answer_timeouts : tuple of float
        Seconds in which it has to answer, each time that it is asked.
    patience : Patience
        Of waits for what the cluster does: on a batch system workers may take hours to come.
    trouble : callable
        The error for which the place where workers come from will give no more of them, or None.
    beside : list of callable
        What is looked at too whenever somebody waits; what one raises ends the wait.
    are_jobs_with_files : bool
        They are jobs, which may end all at once, and see the files of this machine.
    scratch : Path or None
        Where they see a folder for much data.
    roles : dict of str to str
        By address: what a worker is called after what it does, such as ``"rank 1"``.
    """

    facts: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    heard: dict[str, float] = field(default_factory=dict)
    processes: Processes = field(default_factory=Processes)
    is_silent: bool = False
    answer_timeouts: tuple[float, ...] = ANSWER_TIMEOUTS
    patience: Patience = PATIENCE
    trouble: Callable[[], MLaaSError | None] = lambda: None
    beside: list[Callable[[], None]] = field(default_factory=list)
    are_jobs_with_files: bool = False
    scratch: Path | None = None
    roles: Mapping[str, str] = field(default_factory=dict)
    _place: str = "the scheduler"

    def look(self, client: Client) -> dict[str, Mapping[str, Any]]:
        """By address: what the scheduler says of the workers that are there.

        Raises
        ------
        ClusterError
            When the scheduler is gone or does not answer, or nobody will start workers any more.
        Exception
            That of what is looked at beside.
        """
        if error := self.trouble():
            raise error
        for also_look in self.beside:
            also_look()
        if client.scheduler is None or client.status != "running":
            raise self.gone("it has ended, or the connection broke")
        self._place = f"the scheduler at {client.scheduler.address}"
        workers = self._identity(client)
        for address, info in workers.items():
            earlier = self.facts.get(address)
            if earlier is None or earlier["last_seen"] != info["last_seen"]:
                self.heard[address] = time.monotonic()
        self.facts.update(workers)
        return workers

    def _identity(self, client: Client) -> dict[str, Mapping[str, Any]]:
        waited = 0.0
        # Once it was given up, what still asks, such as cleaning up, does not wait as long again.
        for seconds in self.answer_timeouts[:1] if self.is_silent else self.answer_timeouts:
            try:
                identity = client.sync(client.scheduler.identity, callback_timeout=seconds)
            except TimeoutError:
                waited += seconds
                if not self.is_silent:
                    logger.warning("%s has not answered for %g s", self._place, waited)
            except (OSError, AttributeError, RuntimeError) as error:  # of a client that broke
                raise self.gone(f"{type(error).__name__}: {error}") from error
            else:
                self.is_silent = False
                return identity["workers"]  # type: ignore[no-any-return]
        self.is_silent = True
        raise self.gone(f"it has not answered for {waited:g} s")

    def gone(self, why: str) -> ClusterError:
        """The error for a scheduler that is not there any more."""
        return ClusterError(f"{self._place} is gone ({why})", address=self._place)

    def silent_for(self, address: str) -> float:
        """Seconds since a worker was last heard of."""
        return time.monotonic() - self.heard.get(address, time.monotonic())

    def name(self, address: str) -> str:
        """A worker as one finds it: its address, name, host and, on a local cluster, process."""
        worker, pid = self.facts.get(address, {}), self.processes.pid(address)
        words = [word for word in ("name", "host") if worker.get(word) != address]
        facts = [f"{word} {worker[word]}" for word in words]
        if pid is not None:
            facts.append(f"pid {pid}")
        return f"{self._worker(address)} ({', '.join(facts)})"

    def _worker(self, address: str) -> str:
        role = self.roles.get(address)
        return f"{role}'s worker {address}" if role else f"worker {address}"

    def fates(self, client: Client, addresses: Sequence[str]) -> str:
        """What is known of the end of some workers, for a message."""
        ended, in_order = memory_ends(client), ended_in_order(client)
        return "; ".join(self._fate(address, ended, in_order) for address in addresses)

    def _fate(self, address: str, ended: Mapping[str, int], in_order: Mapping[str, str]) -> str:
        worker = self.facts.get(address, {})
        limit = worker.get("memory_limit") or 0
        if words := in_order.get(str(worker.get("local_directory"))):
            return f"{self._worker(address)} {words}"
        if address in ended:
            return (
                f"{self._worker(address)} was ended for memory: it used {size(ended[address])} of "
                f"its limit of {size(limit)}"
            )
        memory = worker.get("metrics", {}).get("memory", 0)
        end = self.processes.end(address)
        text = f"{self._worker(address)} {end or 'left'}"
        if memory and limit:
            text += f", with {size(memory)} of its limit of {size(limit)} of memory in use"
            if memory > MUCH * limit and not end:
                text += "; the system may have ended it for that"
        return text


def size(num_bytes: float) -> str:
    """Bytes as one reads them."""
    return f"{num_bytes / 1e9:.2f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.0f} MB"


def processes(present: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """By address: the folder that each process has for itself, which tells it from the next one.

    A worker that is started again may get the address of the one before.
    """
    return {address: str(info.get("local_directory")) for address, info in present.items()}


def memory_ends(client: Client) -> dict[str, int]:
    """By address: bytes in use of the workers that their nannies ended for memory."""
    return {event["worker"]: event["rss"] for event in events_of(client, ENDED_FOR_MEMORY)}


def num_memory_ends(client: Client) -> int:
    """How often nannies have ended workers for memory."""
    return len(events_of(client, ENDED_FOR_MEMORY))


_workers_of: WeakKeyDictionary[Client, Workers] = WeakKeyDictionary()


def workers_of(client: Client) -> Workers:
    """What is known of the workers of a client's cluster."""
    if client not in _workers_of:
        _workers_of[client] = Workers()
    return _workers_of[client]


def living(client: Client) -> dict[str, Mapping[str, Any]]:
    """By address: what the scheduler says of the workers that are there.

    Raises
    ------
    ClusterError
        When the scheduler is gone or does not answer.
    """
    return workers_of(client).look(client)
