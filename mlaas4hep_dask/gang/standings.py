"""What is told of ranks that do not get on, and when that ends a training."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from mlaas4hep_dask.errors import TrainingError
from mlaas4hep_dask.waiting import ClusterHandle

logger = logging.getLogger(__name__)

STANDINGS = "mlaas4hep_dask-standings"  # topic of Dask events: members that do not get on

FIRST_WORD = 60.0  # seconds without getting on, after which it is told; again after twice as many
HANGS = 1800.0  # seconds, after which a member hangs
SLOWER = 100.0  # than ever before: a member of slow steps has so many times as long
STALE = 25.0  # seconds after which a member that has told nothing more has got on


class Standings:
    """Hears of the members of a gang that do not get on.

    Parameters
    ----------
    what : str
        A name for what they do.
    names : sequence of str
        Of the members, as one finds them.
    clock : callable
        Seconds now.
    """

    def __init__(
        self, what: str, names: Sequence[str], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._what, self._names, self._clock = what, names, clock
        self._heard: dict[int, tuple[float, Mapping[str, Any]]] = {}  # by member: when, and what
        self._next = FIRST_WORD

    def hear(self, facts: Mapping[str, Any]) -> None:
        """Take over what a member tells, as `mlaas4hep_dask.train.standing.Watcher` does."""
        self._heard[facts["rank"]] = (self._clock(), facts)

    def look(self) -> None:
        """Tell which members do not get on, and where they are.

        Raises
        ------
        TrainingError
            When one hangs.
        """
        now = self._clock()
        quiet = [facts for heard, facts in list(self._heard.values()) if now - heard < STALE]
        stuck = [facts for facts in quiet if facts["waits_for"] != "ranks"]
        if not stuck and len(quiet) == len(self._names):  # each waits for another one
            stuck = quiet
        seconds = max((facts["seconds"] for facts in stuck), default=0.0)
        if seconds < FIRST_WORD:
            self._next = FIRST_WORD
            return
        hung = [facts for facts in stuck if _hangs(facts)]
        if hung:
            raise TrainingError(
                f"{self._what}: {self._words(hung, quiet)}, and no end to it is in sight",
                ranks=[facts["rank"] for facts in hung],
            )
        if seconds >= self._next:
            self._next = 2 * seconds
            logger.warning("%s: %s", self._what, self._words(stuck, quiet))

    def _words(self, stuck: Sequence[Mapping[str, Any]], quiet: Sequence[Mapping[str, Any]]) -> str:
        told = [
            f"{self._name(facts)} {_at(facts)} for {facts['seconds']:.0f} s now" for facts in stuck
        ]
        waits: dict[str, list[int]] = {}
        for facts in quiet:
            if facts not in stuck:
                waits.setdefault(facts["place"], []).append(facts["rank"])
        told += [
            f"ranks {sorted(ranks)} wait for others in {place}" for place, ranks in waits.items()
        ]
        return "; ".join(told)

    def _name(self, facts: Mapping[str, Any]) -> str:
        name = self._names[facts["rank"]]
        return name if "pid " in name else f"{name.removesuffix(')')}, pid {facts['pid']})"


def _hangs(facts: Mapping[str, Any]) -> bool:
    """True for what goes on for too long; rows come when there are readers again."""
    return bool(
        facts["waits_for"] != "rows" and facts["seconds"] > max(HANGS, SLOWER * facts["slowest"])
    )


def _at(facts: Mapping[str, Any]) -> str:
    """What a member does, in words."""
    if facts["waits_for"] == "rows":
        return f"has waited for events of {facts['place']}"
    if facts["waits_for"] == "ranks":
        return f"has waited for others in {facts['place']}"
    return f"has been at one step, in {facts['place']},"


@contextmanager
def watched(cluster: ClusterHandle, run: str, what: str, workers: Sequence[str]) -> Iterator[None]:
    """Looks at the members of a run whenever something is waited for, inside a ``with``."""
    standings = Standings(what, [cluster.name(worker) for worker in workers])
    topic = f"{STANDINGS}-{run}"
    cluster.hear(topic, standings.hear)
    try:
        with cluster.looking_at(standings.look):
            yield
    finally:
        cluster.unhear(topic)
