"""ROOT to torch batches with this package: the feed of a training rank, nothing kept in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from request import answer

from mlaas4hep_dask.encode import Block, Encoding, encode
from mlaas4hep_dask.encode.split import event_ids
from mlaas4hep_dask.events import Branch
from mlaas4hep_dask.reader import Partition, plan_file, read
from mlaas4hep_dask.specs.measure import measure
from mlaas4hep_dask.specs.specs import merge_all
from mlaas4hep_dask.train.assign import assign
from mlaas4hep_dask.train.feed import TRAIN, Feed


class BlocksOfFiles:
    """A source that reads blocks when they are asked for, and forgets them after their window."""

    def __init__(
        self, partitions: Sequence[Partition], branches: Sequence[Branch], encoding: Encoding
    ) -> None:
        self._partitions = partitions
        self._branches = branches
        self._encoding = encoding
        self._blocks: dict[int, Block] = {}

    def prefetch(self, blocks: Sequence[int], split: int) -> None:  # noqa: ARG002  # one split is used
        """Forget all others."""
        self._blocks = {n: block for n, block in self._blocks.items() if n in set(blocks)}

    def get(self, block: int, split: int) -> Block:  # noqa: ARG002
        """The block with this number."""
        if block not in self._blocks:
            self._blocks[block] = self._make(self._partitions[block])
        return self._blocks[block]

    def _make(self, partition: Partition) -> Block:
        encoded = encode(read(partition, self._branches), self._encoding)
        return Block(
            encoded,
            np.full(len(partition), partition.sample == "signal", dtype=np.float32),
            np.ones(len(partition), dtype=np.float32),
            event_ids(partition.uuid, partition.entry_start, partition.entry_stop),
            np.full(len(partition), TRAIN, dtype=np.uint8),
        )


def prepare(request: dict[str, Any]) -> Callable[[], Iterator[tuple[int, int]]]:
    torch.set_num_threads(1)
    names = [*request["flat"], *(name for group in request["jagged"].values() for name in group)]
    partitions: list[Partition] = []
    for sample, files in request["files"].items():
        for file in files:
            plan = plan_file(file, request["tree"], sample)
            branches = tuple(plan.branches[name] for name in names)
            partitions += plan.planned(names).partitions(
                target_bytes=64 * 2**20, max_events=25_000, num_entries=plan.num_entries
            )
    specs = merge_all(measure(read(p, branches), sample=p.sample) for p in partitions)
    encoding = Encoding.from_specs(specs, width=request["width"])
    num_columns = encoding.layout.num_columns
    assignment = assign(
        [(partition.sample, len(partition)) for partition in partitions],
        ranks=1,
        batch_size=request["batch_size"],
        window_events=128 * 2**20 // (4 * num_columns),
        seed=0,
    )
    source = BlocksOfFiles(partitions, branches, encoding)
    feed = Feed(
        source,
        assignment,
        rank=0,
        split=TRAIN,
        row_shape=(num_columns,),
        with_missing=True,
    )
    epochs = iter(range(1, 1 << 30))

    def epoch() -> Iterator[tuple[int, int]]:
        source.prefetch((), TRAIN)  # every epoch reads the files
        for window in feed.windows(next(epochs)):
            x, missing, y = map(torch.from_numpy, (window.x, window.missing, window.y))
            for start, stop in zip(window.bounds[:-1], window.bounds[1:], strict=True):
                batch = x[start:stop], missing[start:stop], y[start:stop]
                yield len(batch[0]), sum(part.nbytes for part in batch)

    return epoch


if __name__ == "__main__":
    answer(prepare)
