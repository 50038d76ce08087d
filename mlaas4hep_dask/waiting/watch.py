"""Looks who lives while something is waited for, and ends the wait where nobody could."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping
from typing import Any

from distributed import Client

from mlaas4hep_dask.errors import ClusterError
from mlaas4hep_dask.places import Group
from mlaas4hep_dask.waiting.groups import is_of
from mlaas4hep_dask.waiting.patience import PATIENCE, Patience
from mlaas4hep_dask.waiting.workers import (
    LostWorkerError,
    memory_ends,
    num_memory_ends,
    processes,
    size,
    workers_of,
)

logger = logging.getLogger("mlaas4hep_dask.waiting")

LOOK_EVERY = 1.0  # seconds between looks at who lives
MEMORY_ENDS = 3  # times that workers were ended for memory, none being left
AT_WORK = ("executing", "long-running")


class OverdueError(ClusterError):
    """Tasks have not ended in the time that they had."""


class Watch:
    """Looks who lives during one wait, tells what is lacking, and ends it where nobody could."""

    def __init__(
        self,
        client: Client,
        what: str,
        *,
        on: Mapping[str, str] | None = None,
        group: Group | None = None,
        need: int = 1,
        seconds: float | None = None,
        patience: Patience = PATIENCE,
    ) -> None:
        self.what = what
        self._patience = patience
        self._client = client
        self._workers = workers_of(client)
        self._on = on or {}
        self._group = group
        self._need = need
        # Those that wait on workers are waited for by a client, which has the word.
        self._level = logging.INFO if client.id.startswith("Client-worker") else logging.WARNING
        self._seconds = math.inf if seconds is None else seconds
        self._began = self._last_word = time.monotonic()
        self._lacking_since: float | None = None
        self._ends = 0  # workers ended for memory before anything was lacking
        self._looked = -math.inf
        self._is_manned = False  # the group had a worker at the last look
        self._unmanned = 0.0  # seconds in which it had none

    @property
    def is_due(self) -> bool:
        """True when the last look was some time ago."""
        return time.monotonic() - self._looked >= LOOK_EVERY

    def look(self, *, alone: bool = True) -> Mapping[str, Mapping[str, Any]]:
        """Who is there now.

        Raises
        ------
        LostWorkerError, OverdueError, ClusterError
            When what is waited for cannot come any more; if ``alone``, for want of workers too.
        """
        before = max(self._looked, self._began)
        self._looked = now = time.monotonic()
        present = self._workers.look(self._client)
        if not self._is_manned:
            self._unmanned += now - before
        self._is_manned = bool(self._members(present))
        now_there = processes(present)
        lost = [worker for worker, process in self._on.items() if now_there.get(worker) != process]
        if lost:
            fates = self._workers.fates(self._client, lost)
            raise LostWorkerError(f"{self.what}: {fates}", workers=lost)
        lack, bound = self._lack(present)
        if now - self._began - self._unmanned > self._seconds:
            raise OverdueError(f"{self.what}: no end after {self._seconds:g} s")
        if not lack:
            self._lacking_since = None
            if now - self._last_word > self._patience.long:
                self._last_word = now
                logger.log(self._level, "%s: %s", self.what, self._at_work(present))
            return present
        if self._lacking_since is None:
            self._lacking_since = now
            self._last_word = now - self._patience.next_word + self._patience.first_word
            self._ends = num_memory_ends(self._client)
        lacking = now - self._lacking_since
        if now - self._last_word >= self._patience.next_word:
            self._last_word = now
            logger.log(self._level, "%s: %s, for %.0f s now", self.what, lack, lacking)
        if not present and num_memory_ends(self._client) - self._ends >= MEMORY_ENDS:
            raise ClusterError(f"{self.what}: no worker lives{ended_for_memory(self._client)}")
        if alone and lacking > bound:
            text = f"{self.what}: {lack}, for {lacking:.0f} s, and no end to it is in sight"
            raise ClusterError(text + ended_for_memory(self._client))
        return present

    def _members(self, present: Mapping[str, Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        return [info for info in present.values() if not self._group or is_of(info, self._group)]

    def _lack(self, present: Mapping[str, Mapping[str, Any]]) -> tuple[str, float]:
        """What is lacking, and for how many seconds it may."""
        if not present:
            return f"waiting for {num_workers(self._need)} (none is here)", self._patience.no_worker
        members = self._members(present)
        if len(members) < self._need:
            of = f" of {self._group!r}" if len(members) < len(present) else ""
            text = (
                f"waiting for {num_workers(self._need)}{of} ({len(members)} of {self._need} here)"
            )
            return text, self._patience.no_worker
        concerned = {a: info for a, info in present.items() if a in self._on} or dict(present)
        full = [address for address, info in concerned.items() if _is_stuck(info)]
        if full and (len(full) == len(concerned) or self._on):
            info = concerned[full[0]]
            memory, limit = info["metrics"].get("memory", 0), info["memory_limit"] or 0
            text = (
                f"worker {full[0]} is paused: {size(memory)} of its limit of {size(limit)} of "
                "memory are in use, and it is at no task"
            )
            return text, self._patience.paused
        quiet = max(
            self._patience.silent, len(present) / 10
        )  # the more there are, the less often each is heard
        silent = [address for address in concerned if self._workers.silent_for(address) > quiet]
        if silent:
            since = time.time() - self._workers.silent_for(silent[0])
            clock = time.strftime("%H:%M:%S", time.localtime(since))
            return (
                f"no sign of life of {self._workers.name(silent[0])} since {clock}",
                self._patience.mute,
            )
        return "", 0.0

    def _at_work(self, present: Mapping[str, Mapping[str, Any]]) -> str:
        num_tasks = sum(
            sum(info["metrics"].get("task_counts", {}).get(kind, 0) for kind in AT_WORK)
            for info in present.values()
        )
        seconds = time.monotonic() - self._began
        return f"{num_workers(len(present))} at {num_tasks} tasks, after {seconds:.0f} s"


def _is_stuck(info: Mapping[str, Any]) -> bool:
    """True for a worker that takes no task, for lack of memory, and is at none."""
    task_counts = info["metrics"].get("task_counts", {})
    return info["status"] == "paused" and not any(task_counts.get(kind) for kind in AT_WORK)


def num_workers(number: int) -> str:
    """``1 worker``, ``2 workers``."""
    return f"{number} worker" if number == 1 else f"{number} workers"


def ended_for_memory(client: Client) -> str:
    """How often nannies ended workers for memory, and what helps; empty if none was."""
    ended = memory_ends(client)
    if not ended:
        return ""
    return (
        f"; nannies ended workers {num_memory_ends(client)} times for memory, the last with "
        f"{size(list(ended.values())[-1])} in use: give them a larger limit (cluster.memory_limit)"
    )
