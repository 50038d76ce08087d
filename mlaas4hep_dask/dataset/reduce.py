"""The specs pass as Dask graphs: groups of tasks, each of a few partitions, merged by workers."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

from mlaas4hep_dask.dataset.measuring import Piece, finish_piece
from mlaas4hep_dask.dataset.tasks import Measured, merge_measured
from mlaas4hep_dask.inputs.context import Context

FAN_IN = 8  # merging is cheap next to the 2 ms that a task costs, and specs are small
MAX_TASKS = 100_000  # beyond, a task measures as many partitions as it takes
TOGETHER = 4  # partitions of a task, while each thread has at least `TASKS_PER_THREAD`
TASKS_PER_THREAD = 8  # with fewer, threads would wait long for the last one

Function = Callable[[Sequence[Piece], Context], Measured]


@dataclass(frozen=True)
class Group:
    """Tasks whose results workers merge, so that the client takes one.

    Parameters
    ----------
    number : int
        Tells it from other groups.
    tasks : tuple of tuple of Piece
        The pieces of each task.
    file : Piece or None
        The file that they are parts of, if the cache is to keep it.
    num_groups : int
        How many groups its parts are in.
    """

    number: int
    tasks: tuple[tuple[Piece, ...], ...]
    file: Piece | None = None
    num_groups: int = 1

    def graph(self, context: Any, *, token: str, function: Function) -> tuple[dict[Any, Any], Any]:
        """A low-level graph, and its key whose value is a `Measured` of all pieces.

        Parameters
        ----------
        context : Context, future or key
            What all partitions share.
        token : str
            Names the tasks, of which no others may have the names.
        function : callable
            What a task does with pieces.
        """
        keys = [(f"measure-{token}", self.number, place) for place in range(len(self.tasks))]
        graph: dict[Any, Any] = {
            key: (function, pieces, context) for key, pieces in zip(keys, self.tasks, strict=True)
        }
        merged = (f"merge-{token}", self.number)
        if self.file is not None and self.num_groups == 1:
            graph[merged] = (finish_piece, keys, self.file)
        elif len(keys) > 1:
            graph[merged] = (merge_measured, keys)
        else:
            return graph, keys[0]
        return graph, merged

    def place(self, key: Any) -> str:
        """The data of a task, for a message."""
        if not str(key[0]).startswith("measure-"):
            return ""
        partitions = [part for piece in self.tasks[key[2]] for part in piece.partitions]
        more = f" and {len(partitions) - 1} more partitions" if len(partitions) > 1 else ""
        return f"{partitions[0]}{more}"


class Groups:
    """Groups of all tasks, made one by one while the number of threads may change.

    A task costs workers 4 ms, half of that to send and merge its result, so it takes up to
    `TOGETHER` partitions. A group has no more tasks than run at a time: what is done waits for the
    rest of its group in the memory of workers.

    Parameters
    ----------
    pieces : sequence of Piece
        The files of the data set, or parts of them.
    threads : int
        How many tasks the cluster works on at a time; to be set anew when it changes.
    max_tasks : int
        A task handles as many partitions as it takes to stay near this number.
    """

    def __init__(
        self, pieces: Sequence[Piece], *, threads: int = 1, max_tasks: int = MAX_TASKS
    ) -> None:
        self.threads = threads
        self._pieces = pieces
        self._num_partitions = sum(map(_cost, pieces))
        self._max_tasks = max_tasks

    def __iter__(self) -> Iterator[Group]:
        numbers = count()
        tasks: deque[tuple[Piece, ...]] = deque()
        together: list[Piece] = []
        load = 0
        for piece in self._pieces:
            cost, size = _cost(piece), self._size()
            if cost > size:
                parts = [(part,) for part in piece.divided(size)]
                if piece.entry is None:
                    tasks += parts
                else:
                    starts = range(0, len(parts), fan_in := self._fan_in())
                    for start in starts:
                        group = tuple(parts[start : start + fan_in])
                        yield Group(next(numbers), group, piece, len(starts))
            else:
                if load + cost > size:
                    tasks.append(tuple(together))
                    together, load = [], 0
                together.append(piece)
                load += cost
            while len(tasks) >= (size := self._fan_in()):
                yield Group(next(numbers), tuple(tasks.popleft() for _ in range(size)))
        if together:
            tasks.append(tuple(together))
        if tasks:
            yield Group(next(numbers), tuple(tasks))

    def _size(self) -> int:
        """Partitions of a task."""
        return max(
            1,
            math.ceil(self._num_partitions / self._max_tasks),
            min(TOGETHER, self._num_partitions // (TASKS_PER_THREAD * self.threads)),
        )

    def _fan_in(self) -> int:
        return max(2, min(FAN_IN, self.threads))


def _cost(piece: Piece) -> int:
    """The partitions that have to be read, or one look into the cache."""
    return 1 if piece.is_cached else len(piece)
