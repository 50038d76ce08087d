"""Workers that do something together: all at once, each with its part, and again if one dies."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mlaas4hep_dask.errors import ClusterError, MLaaSError, TrainingError
from mlaas4hep_dask.gang.members import run_members
from mlaas4hep_dask.gang.source import KeptBlocks
from mlaas4hep_dask.gang.standings import HANGS
from mlaas4hep_dask.waiting import ClusterHandle, LostWorkerError, OverdueError, processes

logger = logging.getLogger(__name__)

GRACE = 10  # seconds in which a death may explain another error


class Gang:
    """Some workers of a cluster, from the group ``trainers``.

    Parameters
    ----------
    cluster : ClusterHandle
        Whose workers they are.
    size : int
        How many.
    what : str
        Why so many, for messages, such as ``"training.ranks is 2"``.
    timeout : float, optional
        Seconds for workers to come, or to come back; by default as long as the cluster has
        patience with a group that has no worker.
    grace : float
        Seconds in which a death may explain another error.
    """

    def __init__(
        self,
        cluster: ClusterHandle,
        size: int,
        what: str,
        *,
        timeout: float | None = None,
        grace: float = GRACE,
    ) -> None:
        self._grace = grace
        self._timeout = cluster.patience.no_worker if timeout is None else timeout
        self.cluster = cluster
        self.size = size
        self._what = what
        self.workers: dict[str, str] = {}  # addresses in the order of ranks, and their processes
        self.info: dict[str, Mapping[str, Any]] = {}  # what the scheduler said of them

    def meet(self) -> None:
        """Wait until there are enough workers, and choose; who was a member before is rather one.

        Raises
        ------
        ClusterError
            When there are too few after the time-out.
        """
        self.cluster.wait_for_workers(
            self.size, self._what, seconds=self._timeout, group="trainers"
        )
        # Those that have been members keep what they have imported.
        self.info = self.cluster.choose(self.size, "trainers", rather=self.workers)
        self.workers = processes(self.info)
        self.cluster.call({worker: f"rank {rank}" for rank, worker in enumerate(self.workers)})
        self.cluster.tell_ends()

    @property
    def hosts(self) -> list[str]:
        """The hosts of the members, in their order."""
        return [info["host"] for info in self.info.values()]

    @property
    def least_memory(self) -> float:
        """Bytes of the smallest memory limit of a member; infinite without limits."""
        return min(info["memory_limit"] or float("inf") for info in self.info.values())

    def run(
        self,
        function: Callable[..., Any],
        arguments: Sequence[tuple[Any, ...]],
        blocks: KeptBlocks,
        what: str,
    ) -> list[Any]:
        """What each member returns, which gets blocks; raises as `run_members`."""
        return run_members(
            self.cluster, function, arguments, workers=self.workers, blocks=blocks, what=what
        )

    def on_each(
        self, function: Callable[..., Any], arguments: Sequence[tuple[Any, ...]], what: str
    ) -> list[Any]:
        """What the first members return, each given its own arguments, as plain tasks."""
        futures = [
            self.cluster.submit(
                function, *arguments_of_member, workers=[worker], pure=False, priority=20
            )
            for worker, arguments_of_member in zip(self.workers, arguments, strict=False)
        ]
        try:
            return self.cluster.gather(futures, what, on=self.workers, seconds=HANGS)
        except OverdueError as error:
            names = [
                self.cluster.name(worker)
                for worker, future in zip(self.workers, futures, strict=False)
                if future.status == "pending"
            ]
            self.cluster.let_go(futures)
            raise TrainingError(f"{error}: {', '.join(names)}") from error
        except BaseException:
            self.cluster.let_go(futures)
            raise

    def on_survivors(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """What the members that still live return."""
        try:
            returned = self.cluster.on_workers(
                function,
                *arguments,
                workers=list(self.workers),
                what=f"{function.__name__} on ranks",
            )
        except ClusterError as error:  # nobody is left to be told; why matters where work is lost
            logger.info("%s: %s", function.__name__, error)
            return []
        return list(returned.values())

    def lost(self) -> dict[str, str]:
        """Addresses of the members that have left, and their processes."""
        alive = processes(self.cluster.alive())
        return {worker: own for worker, own in self.workers.items() if alive.get(worker) != own}

    def ended_in_order(self) -> bool:
        """True when members have left, and all of them in order: at their time, or told to."""
        lost = set(self.lost().values())
        return bool(lost) and lost <= self.cluster.ended_in_order().keys()

    def why(self, error: Exception) -> Exception:
        """What an error is told as: what became of lost members, not what others saw of that."""
        lost = list(self.lost())
        if not lost or isinstance(error, LostWorkerError):
            return error
        return LostWorkerError(self.cluster.fates(lost), workers=lost)

    def has_lost(self, error: Exception) -> bool:
        """True when a member has died, which an error may be a result of."""
        if isinstance(error, LostWorkerError):
            return True
        if isinstance(error, MLaaSError) and not isinstance(error, TrainingError):
            return False
        # A rank's own error is its own; one that waited for others may have waited for the dead.
        is_own = isinstance(error, TrainingError) and not error.facts.get("late")
        deadline = time.monotonic() + (0 if is_own else self._grace)
        while True:
            if self.lost():
                return True
            if time.monotonic() > deadline:
                return False
            time.sleep(0.2)  # between looks at the scheduler
