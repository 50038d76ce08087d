"""The blocks of a data set, as tasks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from distributed import Future

from mlaas4hep_dask.dataset.tasks import make_block
from mlaas4hep_dask.encode import Block
from mlaas4hep_dask.inputs.context import Context
from mlaas4hep_dask.reader import Partition
from mlaas4hep_dask.waiting import ClusterHandle


@dataclass(frozen=True)
class BlockPlan:
    """Which block is which.

    Parameters
    ----------
    token : str
        Names the tasks; equal for equal data and encoding.
    partitions : tuple of Partition
        Block ``i`` is made of partition ``i``.
    context : Context
        What the blocks share, with the encoding.
    split_counts : tuple
        For each block its events for training, validation and test.
    """

    token: str
    partitions: tuple[Partition, ...]
    context: Context
    split_counts: tuple[tuple[int, int, int], ...]

    def key(self, block: int) -> tuple[str, int]:
        """The Dask key of a block."""
        return (f"block-{self.token}", block)

    def task(self, block: int) -> tuple[Callable[..., Block], tuple[Any, ...]]:
        """What makes a block of its partition and the context, and what else that is given."""
        return make_block, (self.split_counts[block],)

    def submit(self, cluster: ClusterHandle, block: int, *, near: str | None = None) -> Future:
        """A future of a block, rather on the worker ``near``; made once however often."""
        function, more = self.task(block)
        return cluster.submit(
            function,
            self.partitions[block],
            cluster.share(self.context, self.token),
            *more,
            group="readers",
            near=near,
            key=self.key(block),
        )
