"""One rank's training loop fed from packed blocks, against loops on dense rows in memory.

The ratio is that to a bare loop of the same network, loss and optimiser over tensors that are
there already. A second one is to our own loop over them: the difference is what feeding costs,
shuffling and writing the dense rows of each window. All run the published network with Adam on
one core; reading and encoding are done before. With --cores 2 the thread that feeds has a core of
its own, as in a run with fewer ranks than cores.

With --feed nothing is learned: windows with their missing mask are made, against copies of the same
rows and masks.

With --precision our own loop over rows in memory is compared with the same in float32, with
--device cuda our loop with its feed on a GPU with the same on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import common
import numpy as np
import plain
import torch

from mlaas4hep_dask.devices import gpus_here
from mlaas4hep_dask.encode import Block, Encoding, encode
from mlaas4hep_dask.encode.split import event_ids, split_of
from mlaas4hep_dask.objective import TwoClasses
from mlaas4hep_dask.reader import Partition, read
from mlaas4hep_dask.specs.measure import measure
from mlaas4hep_dask.specs.specs import merge_all
from mlaas4hep_dask.train.assign import Assignments, assign
from mlaas4hep_dask.train.device_rows import DeviceRows
from mlaas4hep_dask.train.feed import TRAIN, Feed, Window
from mlaas4hep_dask.train.given import Given
from mlaas4hep_dask.train.method import OPTIMISERS, Method, Piece
from mlaas4hep_dask.train.model import ModelSource
from mlaas4hep_dask.train.rank import Rank
from mlaas4hep_dask.train.session import RankTask
from mlaas4hep_dask.usercode import find_code

ADAM = Piece(
    "optimiser",
    find_code(f"{OPTIMISERS}:Adam", resolve=Path),
    common.PUBLISHED["training"]["optimiser"]["kwargs"],
)


class BlocksInMemory:
    """A block source that has all blocks."""

    def __init__(self, blocks: list[Block]) -> None:
        self._blocks = blocks

    def prefetch(self, blocks: object, split: int) -> None:
        """Nothing has to be fetched."""

    def get(self, block: int, split: int) -> Block:  # noqa: ARG002  # all splits are there
        """The block with this number."""
        return self._blocks[block]


def encoded_block(files: common.Files, partition: Partition, encoding: Encoding) -> Block:
    """The block of a partition, with the split of a run."""
    ids = event_ids(partition.uuid, partition.entry_start, partition.entry_stop)
    return Block(
        encode(read(partition, files.branches), encoding),
        np.full(len(partition), partition.sample == "signal", dtype=np.float32),
        np.ones(len(partition), dtype=np.float32),
        ids,
        split_of(ids, (0.64, 0.16, 0.20), seed=0),
    )


def rank_task(
    assignments: Assignments,
    num_columns: int,
    precision: str = "float32",
    device: str = "cpu",
    **kwargs: Any,
) -> RankTask:
    """What the only rank of a training of the published network is told."""
    return RankTask(
        session="benchmark",
        rank=0,
        num_ranks=1,
        host="",
        model=ModelSource(find_code("mlaas4hep_dask.train.network:mlp", resolve=Path), kwargs),
        given=Given((num_columns,)),
        learning_rate=1e-3,
        seed=0,
        mean_weight=1.0,
        assignments=assignments,
        objective=TwoClasses(("background", "signal")),
        method=Method(optimiser=ADAM, precision=precision),
        device=device,
    )


def report_feed(parsed: Any, feed: Feed, events: int) -> None:
    """Make all windows, in turns with copies of them, and print the JSON line."""
    first = next(iter(feed.windows(1)))
    ready = first.x.copy(), first.missing.copy()
    copies = np.empty_like(ready[0]), np.empty_like(ready[1])

    def ours() -> None:
        for _ in feed.windows(1):
            pass

    def reference() -> None:
        for _ in range(feed.num_windows):
            for copied, array in zip(copies, ready, strict=True):
                np.copyto(copied, array)

    common.close(
        "feed",
        events,
        common.compare(ours, reference, parsed.repeats),
        reference="copies of the same rows and masks",
        cores=parsed.cores,
        columns=ready[0].shape[1],
    )


def main() -> None:
    parsed = common.options(
        __doc__.splitlines()[0],
        batch_size={"type": int, "default": 100, "help": "events per step"},
        precision={"choices": ("bfloat16", "float16"), "help": "against float32"},
        device={"choices": ("cuda",), "help": "against the CPU; with --precision in that there"},
        cores={"type": int, "default": 1, "help": "1, or more: the feed has one to itself"},
        flat={"action": "store_true", "help": "the 22 flat branches alone, not 711 columns"},
        feed={"action": "store_true", "help": "the feed alone, with the missing mask"},
        hidden={"type": int, "nargs": "+", "default": [128, 64], "help": "width of the layers"},
    )
    if parsed.device and (error := gpus_here().error):
        raise SystemExit(f"--device {parsed.device}: there is no GPU: {error}")
    if parsed.cores == 1:
        common.pin_to_one_core()
    files = common.planned_files(parsed)
    if parsed.flat:
        flat = tuple(branch for branch in files.branches if branch.collection is None)
        files = replace(files, branches=flat)
    specs = merge_all(measure(read(p, files.branches), sample=p.sample) for p in files.partitions)
    encoding = Encoding.from_specs(specs)
    blocks = [encoded_block(files, partition, encoding) for partition in files.partitions]
    num_columns = blocks[0].encoded.layout.num_columns
    counts = [
        (partition.sample, int((block.split == TRAIN).sum()))
        for partition, block in zip(files.partitions, blocks, strict=True)
    ]
    assignment = assign(
        counts,
        ranks=1,
        batch_size=parsed.batch_size,
        window_events=128 * 2**20 // (4 * num_columns),
        seed=0,
    )
    assignments = Assignments(assignment, assignment, assignment)
    task = rank_task(assignments, num_columns, hidden=parsed.hidden)
    feed_of = partial(
        Feed, BlocksInMemory(blocks), assignment, rank=0, split=TRAIN, row_shape=(num_columns,)
    )
    feed = feed_of()
    first = next(iter(feed.windows(1)))
    in_memory = Window(*(None if a is None else np.copy(a) for a in vars(first).values()))
    events = assignment.num_events(0)

    if parsed.feed:
        report_feed(parsed, feed_of(with_missing=True), events)
        return

    def learn(rank: Rank, window: Window) -> None:
        for _ in rank.learner.learn(window, window.w):
            pass

    def ours(task: RankTask = task, feed: Feed = feed) -> None:
        rank = Rank(task, None)
        for window in feed.windows(1):
            learn(rank, window)

    def tensors_in_memory(task: RankTask = task) -> None:
        rank = Rank(task, None)
        for _ in range(assignment.num_windows):
            learn(rank, in_memory)

    x, y = torch.from_numpy(in_memory.x), torch.from_numpy(in_memory.y)

    def bare_loop() -> None:
        network = task.model.build(num_columns)
        for _ in range(assignment.num_windows):
            plain.learn(network, x, y, batch_size=parsed.batch_size, shuffle=False)

    compared: Callable[[], None] = ours
    references = {"bare loop": bare_loop, "rows in memory": tensors_in_memory}
    reference = "a bare loop of the same network, loss and optimiser on tensors in memory"
    if parsed.device:
        device = "cuda:0"
        precision = parsed.precision or "float32"
        there = rank_task(assignments, num_columns, precision, device, hidden=parsed.hidden)
        rows = partial(DeviceRows, device=torch.device(device))
        compared = partial(ours, there, feed_of(rows=rows))
        references, reference = {"CPU": ours}, "the same loop with its feed on one core"
    elif parsed.precision:
        lower = rank_task(assignments, num_columns, parsed.precision, hidden=parsed.hidden)
        compared, references = partial(tensors_in_memory, lower), {"float32": tensors_in_memory}
        reference = "the same loop in float32"
    results = common.compare_with(compared, references, parsed.repeats)
    steps = sum(assignment.num_steps(i) for i in range(assignment.num_windows))
    # Windows differ by at most one batch, so all loops take the same number of steps.
    common.close(
        "train",
        events,
        next(iter(results.values())),
        reference=reference,
        cores=parsed.cores,
        **common.ratios(results),
        steps=steps,
        columns=num_columns,
        batch_size=parsed.batch_size,
        hidden=parsed.hidden,
        precision=parsed.precision or "float32",
        device=parsed.device or "cpu",
    )


if __name__ == "__main__":
    main()
