"""Pass 1 on a cluster: what workers measure is taken and merged here, as soon as it is done.

So all workers may end at once, as batch jobs do by their walltime: what they were at is done
again, and nothing else. The client holds the specs of all that was taken, those of each file of
which parts are missing, and a few results.
"""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Sequence
from dataclasses import replace

from distributed import Future

from mlaas4hep_dask.dataset.measuring import Piece, keep_piece, measure_pieces
from mlaas4hep_dask.dataset.plan import Skipped
from mlaas4hep_dask.dataset.reduce import FAN_IN, MAX_TASKS, Function, Group, Groups
from mlaas4hep_dask.dataset.so_far import SoFar
from mlaas4hep_dask.dataset.tasks import Measured, merge_measured
from mlaas4hep_dask.inputs.context import Context
from mlaas4hep_dask.specs import Specs
from mlaas4hep_dask.waiting import ClusterHandle, Work


def collect(
    cluster: ClusterHandle,
    pieces: Sequence[Piece],
    context: Context,
    *,
    token: str,
    function: Function = measure_pieces,
    max_tasks: int = MAX_TASKS,
    so_far: SoFar | None = None,
) -> Measured:
    """What all pieces together give.

    Parameters
    ----------
    cluster : ClusterHandle
        Where the work runs.
    pieces : sequence of Piece
        The files of the data set, or parts of them.
    context : Context
        What all partitions share.
    token : str
        Names the tasks.
    function : callable
        What a task does with pieces.
    max_tasks : int
        A task handles as many partitions as it takes to stay near this number.
    so_far : SoFar, optional
        Told of all results, and written at the end, however that comes.

    Raises
    ------
    MLaaSError
        The first error of a task, or what is wrong with the cluster.
    """
    # Which pieces are a group depends on the cluster of the moment: no others may have its names.
    name = f"{token}-{uuid.uuid4().hex}"
    groups = Groups(pieces, max_tasks=max_tasks)
    queue = iter(groups)
    shared = cluster.share(context, token)
    files = _Files()
    total = _Total()

    def work_of(group: Group) -> Work:
        def send(num_sent: int) -> Future:
            graph, key = group.graph(shared, token=f"{name}-{num_sent}", function=function)
            return cluster.compute(graph, key, group="readers")

        return Work(send, group, len(group.tasks), group.place)

    def source(num_threads: int) -> Work | None:
        if files.complete:
            return _keeping(cluster, *files.complete.popleft())
        groups.threads = max(1, num_threads)
        group = next(queue, None)
        return None if group is None else work_of(group)

    try:
        for group, result in cluster.taken(source, "specs", shared=[shared], group="readers"):
            if group is None:
                total.note(result)
            elif (measured := files.merged(group, result)) is not None:
                total.add(measured)
                if so_far is not None:
                    so_far.add(measured)
    finally:
        if so_far is not None:
            so_far.write()
    return total.measured(pieces)


def _keeping(cluster: ClusterHandle, measured: Measured, file: Piece) -> Work:
    """Work that lets the cache keep a file, of which a worker can write the entry."""

    def send(_: int) -> Future:
        return cluster.submit(keep_piece, measured, file, group="readers", pure=False)

    return Work(send, place=lambda _: file.partitions[0].file)


class _Files:
    """Files with tasks in several groups: each is merged by itself, to be kept in the cache."""

    def __init__(self) -> None:
        self._parts: dict[int, tuple[int, Measured]] = {}  # by file: groups that came, and merged
        self.complete: deque[tuple[Measured, Piece]] = deque()

    def merged(self, group: Group, result: Measured) -> Measured | None:
        """The result of a group; of such a file that of all of it, once it is complete."""
        if group.file is None or group.num_groups == 1:
            return result
        num_come, earlier = self._parts.pop(group.file.first, (0, Measured(Specs(), {})))
        num_come, merged = num_come + 1, merge_measured([earlier, result])
        if num_come < group.num_groups:
            self._parts[group.file.first] = num_come, merged
            return None
        self.complete.append((merged, group.file))
        return merged


class _Total:
    """What was measured so far."""

    def __init__(self) -> None:
        self._merged = Measured(Specs(), {})
        self._waiting: list[Measured] = []  # merging several at once costs less
        self._split_counts: dict[int, tuple[int, int, int]] = {}
        self._skipped: list[Skipped] = []
        self._not_kept: list[str] = []

    def add(self, measured: Measured) -> None:
        # Without what grows with the number of partitions, which would be copied at each merge.
        self._split_counts.update(measured.split_counts)
        self._skipped += measured.skipped
        self._waiting.append(replace(measured, split_counts={}, skipped=()))
        if len(self._waiting) == FAN_IN:
            self._merge()

    def note(self, why_not_kept: str) -> None:
        """Count a file that could not be kept, if there is a reason."""
        self._not_kept += [why_not_kept] if why_not_kept else []

    def measured(self, pieces: Sequence[Piece]) -> Measured:
        """All of it; what was skipped is in the order of the pieces."""
        self._merge()
        skipped = self._skipped
        if skipped:
            parts = (part for piece in pieces for part in piece.partitions)
            places = {(p.file, p.tree, p.entry_start): place for place, p in enumerate(parts)}
            skipped = sorted(skipped, key=lambda each: places[each.key])
        merged = self._merged
        return replace(
            merged,
            split_counts=self._split_counts,
            skipped=tuple(skipped),
            num_not_kept=merged.num_not_kept + len(self._not_kept),
            why_not_kept=next(iter(self._not_kept), merged.why_not_kept),
        )

    def _merge(self) -> None:
        self._merged = merge_measured([self._merged, *self._waiting])
        self._waiting = []
