"""Results of tasks in the order of the tasks, with few of them under way."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

from distributed import Future

from mlaas4hep_dask.waiting import ClusterHandle
from mlaas4hep_dask.waiting.taking import Work

T = TypeVar("T")

AHEAD = 2  # tasks per thread of the cluster that are under way, or done before an earlier one
LEAST_AHEAD = 16  # such tasks, so that it shows how many workers there could be


def in_order(
    cluster: ClusterHandle,
    function: Callable[..., T],
    arguments: Iterable[tuple[Any, ...]],
    what: str,
    *,
    shared: Sequence[Future] = (),
) -> Iterator[T]:
    """What ``function(*task)`` returns for each task, in their order.

    Results are taken as soon as they are done, so that none is lost with the workers. A task is
    submitted only when an earlier result has been given, so that a bounded number of results is
    held whatever the number of tasks. ``shared`` are values that the tasks refer to. When the
    iterator is closed, tasks under way are cancelled.

    Raises
    ------
    ClusterError
        When workers died again and again at one task, or none is left.
    Exception
        The first error of a task.
    """
    numbered = enumerate(arguments)
    num_sent = num_given = 0
    results: dict[int, T] = {}

    def source(num_threads: int) -> Work | None:
        nonlocal num_sent
        if num_sent - num_given >= max(LEAST_AHEAD, AHEAD * num_threads):
            return None
        return next((work_of(number, task) for number, task in numbered), None)

    def work_of(number: int, task: tuple[Any, ...]) -> Work:
        nonlocal num_sent
        num_sent += 1
        return Work(lambda _: cluster.submit(function, *task, group="readers", pure=False), number)

    for number, result in cluster.taken(source, what, shared=shared, group="readers"):
        results[number] = result
        while num_given in results:
            yield results.pop(num_given)
            num_given += 1
