"""Results of tasks in the order of the tasks, with few of them under way."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from distributed import Future

from mlaas4hep_dask.waiting import ClusterHandle

T = TypeVar("T")

AHEAD = 2  # tasks per thread of the cluster that are under way, or done and not yet taken


def in_order(
    cluster: ClusterHandle, function: Callable[..., T], tasks: Iterable[tuple[Any, ...]], what: str
) -> Iterator[T]:
    """What ``function(*task)`` returns for each task, in their order.

    A task is submitted only when an earlier result has been taken, so that workers hold a bounded
    number of results whatever the number of tasks, and so do they lose if they end all at once.
    When the iterator is closed, tasks under way are cancelled.

    Raises
    ------
    ClusterError
        When workers died again and again at one task, or none is left.
    Exception
        The first error of a task.
    """
    queue = iter(tasks)
    room = AHEAD * cluster.num_threads("readers")
    waiting: deque[Future] = deque()

    def submit() -> None:
        task = next(queue, None)
        if task is not None:
            waiting.append(cluster.submit(function, *task, group="readers", pure=False))

    try:
        for _ in range(room):
            submit()
        while waiting:
            result: T = cluster.result(waiting[0], what, group="readers", beside=waiting)
            waiting.popleft()
            submit()
            yield result
    finally:
        if waiting:
            cluster.let_go(list(waiting))
