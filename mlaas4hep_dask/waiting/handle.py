"""The cluster as stages get it: where work is submitted, and where all waits for it are."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import dask
from distributed import Client, Future

from mlaas4hep_dask.places import Group
from mlaas4hep_dask.waiting import shared as shares
from mlaas4hep_dask.waiting import taking, waits
from mlaas4hep_dask.waiting.groups import is_of, needed, separate
from mlaas4hep_dask.waiting.lifetimes import ended_in_order, tell_ends
from mlaas4hep_dask.waiting.patience import Patience
from mlaas4hep_dask.waiting.taking import Work
from mlaas4hep_dask.waiting.watch import LOOK_EVERY
from mlaas4hep_dask.waiting.workers import living, workers_of

# Networks and examples travel with their tasks, once each; Dask warns its users of 10 MB, who can
# do nothing about it here.
LARGE = {"distributed.admin.large-graph-warning-threshold": "8 GiB"}
BOARDS = "mlaas4hep_dask-boards"  # among what Dask's scheduler keeps for its clients


class ClusterHandle:
    """A Dask cluster and its groups of workers.

    ``trainers`` may be ranks; ``readers`` read, measure and encode. A worker whose name begins
    with that of a group and a hyphen, such as ``trainers-0``, is in this group alone; all others,
    such as those of a local cluster, are in both. While all workers are of a group, its tasks are
    plain ones; once others are there too, its tasks run on workers of the group alone.

    Parameters
    ----------
    client : distributed.Client
        Of the cluster.
    patience : Patience, optional
        Of its waits; by default that of the place where the cluster was started.
    """

    def __init__(self, client: Client, patience: Patience | None = None) -> None:
        self.client = client
        self._patience = patience
        self._looked: dict[Group, float] = {}  # by group that all workers were of: when it was so
        self._is_separated = False

    @property
    def patience(self) -> Patience:
        """Of its waits."""
        return self._patience or workers_of(self.client).patience

    @classmethod
    def of(cls, cluster: Client | ClusterHandle) -> ClusterHandle:
        """The handle of a client, or the handle itself."""
        return cluster if isinstance(cluster, cls) else cls(cluster)

    def alive(self, group: Group | None = None) -> dict[str, Mapping[str, Any]]:
        """By address: what the scheduler says of the workers of a group, or of all.

        Raises
        ------
        ClusterError
            When the scheduler is gone or does not answer.
        """
        return {
            address: info
            for address, info in living(self.client).items()
            if group is None or is_of(info, group)
        }

    def is_local(self) -> bool:
        """Whether all workers are processes that this one has started, with its own Python."""
        processes = workers_of(self.client).processes
        return all(processes.pid(address) is not None for address in self.alive())

    def num_threads(self, group: Group) -> int:
        """Threads of the workers of a group, at least 1: the first may not have come yet."""
        return max(1, sum(int(info["nthreads"]) for info in self.alive(group).values()))

    def choose(
        self, number: int, group: Group, *, rather: Collection[str] = ()
    ) -> dict[str, Mapping[str, Any]]:
        """By address: so many workers of a group, or all where it has fewer.

        Those come first that take tasks, as paused ones do not, and of these the addresses
        ``rather``. The choice is the same as long as the workers are.
        """
        alive = self.alive(group)
        best = sorted(alive, key=lambda w: (alive[w]["status"] != "running", w not in rather, w))
        return {worker: alive[worker] for worker in sorted(best[:number])}

    def submit(
        self,
        function: Callable[..., Any],
        *arguments: Any,
        group: Group | None = None,
        near: str | None = None,
        **options: Any,
    ) -> Future:
        """A future of a task.

        Parameters
        ----------
        function : callable
            What it calls.
        *arguments
            Its arguments.
        group : {"readers", "trainers"}, optional
            Whose workers may run it; None for all.
        near : str, optional
            Address of a worker that runs it if that is free and all workers are of the group.
        **options
            As in Dask.
        """
        if group is not None and self._is_apart(group):
            options["resources"] = needed(group)
        elif near is not None:
            options |= {"workers": [near], "allow_other_workers": True}
        with dask.config.set(LARGE):
            return self.client.submit(function, *arguments, **options)

    def compute(self, graph: Any, key: Any, *, group: Group | None = None) -> Future:
        """A future of a key of a graph, whose tasks run as those that `submit` gives a group.

        They come after those of every graph before.
        """
        is_apart = group is not None and self._is_apart(group)
        resources = needed(group) if group is not None and is_apart else None
        with dask.config.set(LARGE):
            return self.client.get(graph, key, sync=False, resources=resources, fifo_timeout=0)

    def _is_apart(self, group: Group) -> bool:
        """True when some workers are not of a group; looked up at most once in `LOOK_EVERY`."""
        if self._is_separated:  # it stays so: those of another group may come again
            return True
        now = time.monotonic()
        if now - self._looked.get(group, -LOOK_EVERY) < LOOK_EVERY:
            return False
        self._looked[group] = now
        if all(is_of(info, group) for info in self.alive().values()):
            return False
        self._asked(lambda: separate(self.client), "telling workers of their groups")
        self._is_separated = True
        return True

    def call(self, roles: Mapping[str, str]) -> None:
        """Call workers, by address, after what they do from now on."""
        workers_of(self.client).roles = roles

    def name(self, address: str) -> str:
        """A worker as one finds it: what it is called, its address, host and process."""
        return workers_of(self.client).name(address)

    def fates(self, addresses: Sequence[str]) -> str:
        """What is known of the end of some workers, for a message."""
        return workers_of(self.client).fates(self.client, addresses)

    def tell_ends(self) -> None:
        """Let workers tell when they end in order."""
        self._asked(lambda: tell_ends(self.client), "asking workers to tell of their ends")

    def ended_in_order(self) -> dict[str, str]:
        """In words, how workers ended that ended in order, by their folders as of `processes`."""
        return ended_in_order(self.client)

    def share(self, value: Any, token: str = "") -> Future:
        """A future of a value, for tasks to refer to; made again elsewhere if its worker dies."""
        with dask.config.set(LARGE):
            return shares.share(self.client, value, token)

    def gather(
        self,
        futures: Sequence[Future],
        what: str,
        *,
        on: Mapping[str, str] | None = None,
        group: Group | None = None,
        seconds: float | None = None,
        beside: Collection[Future] = (),
    ) -> list[Any]:
        """The results of tasks, in their order; see `mlaas4hep_dask.waiting.waits.gather`."""
        return waits.gather(
            self.client,
            futures,
            what,
            on=on,
            group=group,
            seconds=seconds,
            beside=beside,
            patience=self.patience,
        )

    def result(
        self,
        future: Future,
        what: str,
        *,
        group: Group | None = None,
        seconds: float | None = None,
        beside: Collection[Future] = (),
    ) -> Any:
        """The result of one task; raises as `gather` does."""
        return self.gather([future], what, group=group, seconds=seconds, beside=beside)[0]

    def taken(
        self,
        source: Callable[[int], Work | None],
        what: str,
        *,
        shared: Sequence[Future] = (),
        group: Group | None = None,
    ) -> Iterator[tuple[Any, Any]]:
        """Tags and results of some work, in the order in which it is done.

        See `mlaas4hep_dask.waiting.taking.taken`.
        """
        return taking.taken(
            self.client, source, what, shared=shared, group=group, patience=self.patience
        )

    def wait_for(self, future: Future, what: str, *, group: Group | None = None) -> None:
        """Wait until a task has ended, well or not; raises as `gather` does, but not its error."""
        waits.wait_for(self.client, future, what, group=group, patience=self.patience)

    def wait_for_workers(
        self, number: int, what: str, *, seconds: float, group: Group | None = None
    ) -> None:
        """Wait until the cluster has a number of workers, or a group of it has.

        Raises
        ------
        ClusterError
            When it has fewer after some seconds; tells of those that were ended for memory.
        """
        waits.wait_for_workers(
            self.client, number, what, seconds=seconds, group=group, patience=self.patience
        )

    def on_workers(
        self,
        function: Callable[..., Any],
        *arguments: Any,
        workers: Sequence[str],
        what: str,
        seconds: float = 30.0,
    ) -> dict[str, Any]:
        """By address: what a function returns that every given worker runs at once.

        See `mlaas4hep_dask.waiting.waits.on_workers`.
        """
        return waits.on_workers(
            self.client, function, *arguments, workers=workers, what=what, seconds=seconds
        )

    @contextmanager
    def looking_at(self, look: Callable[[], None]) -> Iterator[None]:
        """Have something looked at whenever this waits; what it raises ends the wait."""
        beside = workers_of(self.client).beside
        beside.append(look)
        try:
            yield
        finally:
            beside.remove(look)

    def let_go(self, futures: Sequence[Future]) -> None:
        """Cancel tasks, if there is anybody who could be told."""
        waits.let_go(self.client, futures)

    def leave(self, board: str, name: str, words: bytes) -> None:
        """Let all who are connected with the scheduler find some words on a board.

        Raises
        ------
        ClusterError
            When the scheduler is gone or does not answer; as `clear` and `find` do.
        """
        self._write([BOARDS, board, name], words)

    def clear(self, board: str) -> None:
        """Take away what was left on a board."""
        self._write([BOARDS, board], {})

    def find(self, board: str, name: str) -> bytes | None:
        """What was left on a board under a name; None when there is nothing yet."""
        keys = [BOARDS, board, name]
        words: bytes | None = self._asked(
            lambda: self.client.scheduler.get_metadata(keys=keys, default=None), "reading a board"
        )
        return words

    def _write(self, keys: list[str], value: Any) -> None:
        self._asked(
            lambda: self.client.scheduler.set_metadata(keys=keys, value=value), "writing on a board"
        )

    def _asked(self, question: Callable[[], Awaitable[Any]], what: str) -> Any:
        return waits.asked(self.client, question, what)

    def hear(self, topic: str, function: Callable[[Any], None]) -> None:
        """Have a function told what workers log under a topic, until `unhear`.

        Raises
        ------
        ClusterError
            When the scheduler is gone. Dask waits for no answer here.
        """
        if self.client.status != "running":
            self.alive()  # raises
        self.client.subscribe_topic(topic, lambda event: function(event[1]))

    def unhear(self, topic: str) -> None:
        """Have nobody told of a topic any more."""
        self.client.unsubscribe_topic(topic)
