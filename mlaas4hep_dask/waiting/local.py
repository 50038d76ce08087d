"""How the worker processes of a local cluster ended, which only their parent is told."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

from distributed import Nanny, Scheduler, SchedulerPlugin

if TYPE_CHECKING:
    from distributed import LocalCluster
    from distributed.process import AsyncProcess

SOON = 2.0  # seconds in which the end of a process is known here, once its connection has closed
FROM_SHELL = 128  # exit statuses above are those of a process that a shell ran and a signal ended
UNKNOWN = 255  # exit status where nobody could be told
MEANINGS = {
    signal.SIGKILL: "as the system does to a process when memory is short",
    signal.SIGBUS: "as when a disk or /dev/shm is full, or a mapped file has become shorter",
    signal.SIGSEGV: "a fault in compiled code",
    signal.SIGILL: "compiled code is for another processor",
    signal.SIGXCPU: "its limit of CPU time was reached",
}


class Processes(SchedulerPlugin):  # type: ignore[misc]  # untyped there
    """The worker processes that a local cluster ever had, by address.

    A worker may die a moment after it has come, so they are noted as they come.
    """

    def __init__(self) -> None:
        self._seen: dict[str, AsyncProcess] = {}
        self._cluster: LocalCluster | None = None

    def follow(self, cluster: LocalCluster) -> None:
        """Note the processes of a cluster, now and later."""
        self._cluster = cluster
        cluster.scheduler.add_plugin(self)
        for address in list(cluster.scheduler.workers):
            self.add_worker(cluster.scheduler, address)

    def add_worker(self, scheduler: Scheduler, worker: str) -> None:
        """Note a process; the scheduler calls this."""
        nannies = () if self._cluster is None else list(self._cluster.workers.values())
        for nanny in nannies:
            is_its = isinstance(nanny, Nanny) and nanny.address == scheduler.workers[worker].nanny
            if is_its and nanny.process is not None:
                self._seen[worker] = nanny.process.process

    def pid(self, address: str) -> int | None:
        """The process id of a worker, if it is known."""
        return self._seen[address].pid if address in self._seen else None

    def end(self, address: str) -> str:
        """How a worker's process ended, for a message; empty when that is not known."""
        process = self._seen.get(address)
        deadline = time.monotonic() + SOON
        while process is not None and process.exitcode is None and time.monotonic() < deadline:
            time.sleep(0.05)  # between looks
        if process is None or process.exitcode is None:
            return ""
        return end_of(process.exitcode)


def end_of(code: int) -> str:
    """What an exit code of a process says, for a message; negative for a signal."""
    if code == UNKNOWN:
        return ""
    number = -code if code < 0 else code - FROM_SHELL
    try:
        name = signal.Signals(number)
    except ValueError:
        return f"ended with exit status {code}"
    status = f", exit status {code}" if code > 0 else ""
    meaning = f", {MEANINGS[name]}" if name in MEANINGS else ""
    return f"was ended by {name.name} (signal {number}{status}{meaning})"
