"""Gives the ranks of a training their blocks: computed on workers, fetched ahead of use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

from distributed import Future, Worker, get_client, get_worker

from mlaas4hep_dask.dataset.blocks import BlockPlan
from mlaas4hep_dask.encode import Block, EncodeCounts
from mlaas4hep_dask.gang import diskcache
from mlaas4hep_dask.waiting import ClusterHandle, Patience


@dataclass(frozen=True)
class KeptBlocks(BlockPlan):
    """Which block is which, and where blocks stay between epochs; travels to every rank.

    Parameters
    ----------
    on_disk : bool
        Keep the blocks on the disks of the workers that made them.
    folder : str, optional
        Keep them in this folder, which all workers see, too.
    by_run : bool
        The folder is the run's own: see `mlaas4hep_dask.gang.diskcache.kept`.
    in_rank : bool
        Ranks keep all blocks that they use, those of other workers too: these are then sent to
        them once, and not in every epoch.
    splits : tuple of int
        Splits whose events ranks keep, packed, of every block that they have used: these need not
        be read again when the splits are measured.
    patience : Patience, optional
        Of waits for blocks, as of the client's.
    """

    on_disk: bool = False
    folder: str | None = None
    by_run: bool = False
    in_rank: bool = False
    splits: tuple[int, ...] = ()
    patience: Patience | None = None

    @classmethod
    def of(
        cls,
        block_plan: BlockPlan,
        *,
        on_disk: bool = False,
        folder: str | None = None,
        by_run: bool = False,
        in_rank: bool = False,
        splits: tuple[int, ...] = (),
        patience: Patience | None = None,
    ) -> Self:
        """The blocks of a plan."""
        facts = {each.name: getattr(block_plan, each.name) for each in fields(BlockPlan)}
        return cls(
            **facts,
            on_disk=on_disk,
            folder=folder,
            by_run=by_run,
            in_rank=in_rank,
            splits=splits,
            patience=patience,
        )

    def task(self, block: int) -> tuple[Callable[..., Block], tuple[Any, ...]]:
        """As `BlockPlan.task`; what keeps the block on disk, if it is to stay there."""
        if self.on_disk or self.folder is not None:
            more = (self.split_counts[block], self.token, block, self.folder, self.by_run)
            return diskcache.block_on_disk, more
        return super().task(block)


class WorkerBlocks:
    """A `BlockSource` within a Dask worker.

    Unless ``in_rank``, only the blocks of the last `prefetch` are kept. Whether a block let go is
    computed again depends on who else holds it: the client that runs the training does if memory
    allows.
    """

    def __init__(self, blocks: KeptBlocks) -> None:
        self._plan = blocks
        self._worker: Worker = get_worker()
        self._cluster = ClusterHandle(get_client(), blocks.patience)
        self._futures: dict[int, Future] = {}
        self._blocks: dict[int, Block] = {}
        self._kept: dict[tuple[int, int], Block] = {}  # by block and split
        self.counts: dict[int, EncodeCounts] = {}  # of every block that was ever here

    def prefetch(self, blocks: Sequence[int], split: int) -> None:
        """Start to fetch blocks that will be asked for next; all others are let go.

        Nothing is let go when the events of the split are all kept: a later window of another
        split may still want it.
        """
        numbers = dict.fromkeys(number for number in blocks if (number, split) not in self._kept)
        if not numbers:
            return
        if not self._plan.in_rank:
            self._blocks = {n: block for n, block in self._blocks.items() if n in numbers}
            self._futures = {n: future for n, future in self._futures.items() if n in numbers}
        for number in numbers:
            if number not in self._futures:
                self._futures[number] = self._plan.submit(
                    self._cluster, number, near=self._worker.address
                )

    def get(self, block: int, split: int) -> Block:
        """The block with this number; no copy is made if this worker holds it.

        It may be that of the split's events alone, if these are kept.
        """
        if (block, split) in self._kept:
            return self._kept[block, split]
        if block not in self._blocks:
            new = self._blocks[block] = self._fetch(block)
            self.counts[block] = new.encoded.counts
            for split_number in self._plan.splits:
                if (block, split_number) not in self._kept:
                    self._kept[block, split_number] = new.of_split(split_number)
        return self._blocks[block]

    def _fetch(self, number: int) -> Block:
        future = self._futures[number]
        self._cluster.wait_for(future, f"block {number}", group="readers")
        # A mapping that threads may share; a Client would copy through a socket.
        if future.status == "finished" and future.key in self._worker.data:
            return self._worker.data[future.key]  # type: ignore[no-any-return]
        block: Block = self._cluster.result(
            future, f"block {number}", group="readers", beside=list(self._futures.values())
        )
        if self._plan.on_disk:  # another rank's worker made it, and has it on its own disk
            path = diskcache.path_of(self._worker, self._plan.token, number)
            block = diskcache.kept(block, path)
        return block


_sources: dict[str, WorkerBlocks] = {}


def source_of(blocks: KeptBlocks) -> WorkerBlocks:
    """The source of this worker for a plan; kept, so that blocks outlast an epoch."""
    if blocks.token not in _sources:
        _sources.clear()
        _sources[blocks.token] = WorkerBlocks(blocks)
    return _sources[blocks.token]


def known_counts(token: str) -> dict[int, EncodeCounts]:
    """By number: what encoding lost in the blocks that this worker has used."""
    return _sources[token].counts if token in _sources else {}


def forget_sources(dask_worker: Worker) -> None:
    """Let all blocks of a worker's sources go, in memory and on disk."""
    _sources.clear()
    diskcache.clear(dask_worker)
