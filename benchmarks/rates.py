"""Measures what one process of a run takes per event: the rates that `projection.py` projects.

The functions are those of the other benchmarks, and through them those of a run's workers. As many
processes as there are cores do the same at once, since they share memory and caches in a run too.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

import common
import data
import train
import work

from mlaas4hep_dask.cluster import connect
from mlaas4hep_dask.config.sections import Cluster
from mlaas4hep_dask.dataset import Dataset
from mlaas4hep_dask.inputs.context import Context
from mlaas4hep_dask.reader import Partition
from mlaas4hep_dask.run.amounts import assignments
from mlaas4hep_dask.train.rank import Rank
from mlaas4hep_dask.train.session import RankTask

EPOCHS = 3  # of the training that is measured: in the first, memory is new, and it does not count
PASSES = ("read", "specs", "encode", "block")
Numbered = Sequence[tuple[int, Partition]]


def read_all(numbered: Numbered, context: Context) -> None:
    """Read all inputs of some partitions."""
    assert context.encoding is not None  # blocks have one
    parts = [part for _, part in numbered]
    common.read_all(common.Files([], parts, context.encoding.reads))


def train_all(numbered: Numbered, context: Context, task: RankTask) -> dict[str, float]:
    """Processor seconds of an epoch and of the last one, and bytes of all blocks.

    A rank is pinned to no core: its feed is a thread that runs beside it.
    """
    os.sched_setaffinity(0, range(os.cpu_count() or 1))
    blocks = work.pack_all(numbered, context)
    source, rank = train.BlocksInMemory(blocks), Rank(task, None)
    seconds = []
    for epoch in range(1, EPOCHS + 1):
        began = time.process_time()
        rank.run_epoch(source, lambda _: None, epoch)
        if epoch == EPOCHS:
            rank.measure(source, "test")
        seconds.append(time.process_time() - began)
    packed = float(sum(block.nbytes for block in blocks))
    return {"epoch": seconds[1], "last": seconds[2], "packed": packed}


class Meter:
    """Measures the rates with files of one codec, one turn after the other, while it is entered.

    Parameters
    ----------
    folder : Path
        Of generated files.
    events : int
        Over all files.
    codec : str
        As `data.generate` takes it.
    batch : int
        Events of a step.
    """

    def __init__(self, folder: Path, events: int, codec: str, batch: int) -> None:
        self._paths = data.generate(folder, events=events, compression=codec)
        self._batch = batch
        self._turns: list[dict[str, float]] = []

    def __enter__(self) -> Self:
        with tempfile.TemporaryDirectory() as folder:
            settings = common.published(batch_size=self._batch, ranks=1, epochs=EPOCHS)
            config = common.write_config(Path(folder) / "rates.yaml", self._paths, **settings)
            with connect(Cluster(workers=1), ranks=1) as client:
                dataset = Dataset.from_yaml(config, client)
                blocks = dataset.blocks()
                num_columns = dataset.encoding().layout.num_columns
                task = train.rank_task(assignments(dataset, blocks), num_columns)
        self._events = sum(map(len, blocks.partitions))
        cores = len(os.sched_getaffinity(0))
        self._many = work.PinnedProcesses(cores, blocks.partitions, blocks.context)
        self._one = work.PinnedProcesses(1, blocks.partitions, blocks.context)
        self._task = task
        self.turn()
        self._turns.clear()  # of the first, in which all is imported and files are read from disk
        return self

    def __exit__(self, *_: object) -> None:
        self._many.close()
        self._one.close()

    def turn(self) -> None:
        """Measure all rates once more."""
        jobs: dict[str, Callable[..., Any]] = dict(
            zip(PASSES, (read_all, work.measure_all, work.encode_all, work.pack_all), strict=True)
        )
        turn = {name: sum(self._many.run(job)) for name, job in jobs.items()}
        self._turns.append(turn | self._one.ask(partial(train_all, task=self._task))[0])

    def rates(self) -> dict[str, float]:
        """Processor seconds and bytes per event, by the names of `hours.Rates`: medians."""
        found = {
            name: statistics.median(turn[name] for turn in self._turns) / self._events
            for name in self._turns[0]
        }
        stored = sum(path.stat().st_size for path in self._paths)
        return {**found, "stored": stored / self._events}
