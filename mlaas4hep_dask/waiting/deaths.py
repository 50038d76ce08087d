"""Tasks at which workers died: tried again where others got on, since walltimes end workers too.

Dask gives a task up after some deaths of workers that had it, whatever ended them. On a batch
system jobs end by walltime, by eviction and with their machines, and over days that meets one task
several times. A task that itself ends its workers meets it every time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable

from distributed.scheduler import KilledWorker

from mlaas4hep_dask.waiting.shared import is_given_up

ROUNDS = 2  # times that a task which Dask gave up is tried again, while other tasks get on
SHARED_ROUNDS = 100  # of a value that tasks share, without any of them getting on in between


class Deaths:
    """How often tasks of one wait were given up, and how far others were when it happened."""

    def __init__(self) -> None:
        self._rounds: Counter[Hashable] = Counter()
        self._done: dict[Hashable, int] = {}

    def may_try_again(self, task: Hashable, error: KilledWorker, num_done: int) -> bool:
        """True when a task that was given up is to be tried again.

        A value that is shared does nothing at which a worker could die, and is tried oftener.

        Parameters
        ----------
        task : hashable
            Names the task.
        error : KilledWorker
            With which it was given up.
        num_done : int
            How many other tasks of the same wait have been done so far.
        """
        is_shared = is_given_up(error)
        name = error.task if is_shared else task
        got_on = num_done > self._done.get(name, 0)
        self._done[name] = num_done
        if is_shared and got_on:
            self._rounds[name] = 0
        self._rounds[name] += 1
        if is_shared:
            return self._rounds[name] <= SHARED_ROUNDS
        return got_on and self._rounds[name] <= ROUNDS

    def num_deaths(self, task: Hashable, error: KilledWorker) -> int:
        """How many workers died at a task that is not tried again."""
        return int(error.allowed_failures + 1) * max(self._rounds[task], 1)
