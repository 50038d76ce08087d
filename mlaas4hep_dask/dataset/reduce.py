"""The specs pass as a Dask graph: tasks of a few partitions, merged in a tree."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from mlaas4hep_dask.dataset.measuring import Piece, finish_piece, measure_pieces
from mlaas4hep_dask.dataset.tasks import Measured, merge_measured
from mlaas4hep_dask.inputs.context import Context
from mlaas4hep_dask.waiting import shared_key

FAN_IN = 8  # merging is cheap next to the 2 ms that a task costs, and specs are small
MAX_TASKS = 100_000  # beyond, a task measures as many partitions as it takes
TOGETHER = 4  # partitions of a task, while each thread has at least `TASKS_PER_THREAD`
TASKS_PER_THREAD = 8  # with fewer, threads would wait long for the last one


def specs_graph(
    pieces: Sequence[Piece],
    context: Context,
    *,
    token: str,
    function: Callable[[Sequence[Piece], Context], Measured] = measure_pieces,
    threads: int = 1,
    max_tasks: int = MAX_TASKS,
) -> tuple[dict[Any, Any], Any]:
    """A low-level graph, and its key whose value is a `Measured` of all pieces.

    A task costs workers 4 ms, half of that to send and merge its result, so it takes up to
    `TOGETHER` partitions.

    Parameters
    ----------
    pieces : sequence of Piece
        The files of the data set, or parts of them.
    context : Context
        What all partitions share.
    token : str
        Names the tasks.
    function : callable
        What a task does with pieces.
    threads : int
        How many tasks the cluster works on at a time.
    max_tasks : int
        A task handles as many partitions as it takes to stay near this number.
    """
    tree = _Tree(context, token)
    num_partitions = sum(map(_cost, pieces))
    size = max(
        1,
        math.ceil(num_partitions / max_tasks),
        min(TOGETHER, num_partitions // (TASKS_PER_THREAD * threads)),
    )
    together: list[Piece] = []
    load = 0
    for piece in pieces:
        cost = _cost(piece)
        if cost > size and piece.entry is None:
            tree.level += [tree.task(function, (part,)) for part in piece.divided(size)]
            continue
        if cost > size:
            parts = [tree.task(function, (part,)) for part in piece.divided(size)]
            tree.level.append(tree.merge(parts, finish=piece))
            continue
        if load + cost > size:
            tree.level.append(tree.task(function, tuple(together)))
            together, load = [], 0
        together.append(piece)
        load += cost
    if together:
        tree.level.append(tree.task(function, tuple(together)))
    return tree.graph, tree.merge(tree.level)


def _cost(piece: Piece) -> int:
    """The partitions that have to be read, or one look into the cache."""
    return 1 if piece.is_cached else len(piece)


class _Tree:
    """A graph that grows."""

    def __init__(self, context: Context, token: str) -> None:
        self.token = token
        self.shared = shared_key(token)
        self.graph: dict[Any, Any] = {self.shared: context}
        self.level: list[Any] = []

    def add(self, name: str, task: Any) -> Any:
        key = (f"{name}-{self.token}", len(self.graph))
        self.graph[key] = task
        return key

    def task(self, function: Callable[..., Measured], pieces: tuple[Piece, ...]) -> Any:
        return self.add("measure", (function, pieces, self.shared))

    def merge(self, keys: Iterable[Any], *, finish: Piece | None = None) -> Any:
        """The key of what all keys merge to; as a whole file's if that is given."""
        level = list(keys)
        while len(level) > (FAN_IN if finish is not None else 1):
            level = [
                self.add("merge", (merge_measured, level[place : place + FAN_IN]))
                for place in range(0, len(level), FAN_IN)
            ]
        if finish is None:
            return level[0]
        return self.add("merge", (finish_piece, level, finish))
