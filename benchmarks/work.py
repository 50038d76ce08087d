"""What several benchmarks let processes do with partitions; importable by all of these."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from mlaas4hep_dask.dataset.tasks import (
    Measured,
    make_block,
    measure_partition,
    merge_measured,
)
from mlaas4hep_dask.encode import Block
from mlaas4hep_dask.inputs.context import Context
from mlaas4hep_dask.reader import Partition


def measure_all(numbered: Sequence[tuple[int, Partition]], context: Context) -> Measured:
    """The specs of some partitions."""
    return merge_measured([measure_partition(part, number, context) for number, part in numbered])


def encode_one(partition: Partition, context: Context) -> int:
    """Bytes of the dense rows of a partition, which are made and let go."""
    return int(make_block(partition, context).encoded.dense().nbytes)


def encode_all(numbered: Sequence[tuple[int, Partition]], context: Context) -> int:
    """Bytes of the dense rows of some partitions."""
    return sum(encode_one(part, context) for _, part in numbered)


def pack_all(numbered: Sequence[tuple[int, Partition]], context: Context) -> list[Block]:
    """The packed blocks of some partitions."""
    return [make_block(part, context) for _, part in numbered]


def nothing(*_: object) -> Measured:
    """Nothing, for the cost of a task."""
    return merge_measured([])


class PinnedProcesses:
    """Processes that know nothing of each other, each on a core of its own.

    Each does its share of the partitions when told; a share is every n-th partition.
    """

    def __init__(
        self, num_processes: int, partitions: Sequence[Partition], context: Context
    ) -> None:
        spawn = multiprocessing.get_context("spawn")
        numbered = list(enumerate(partitions))
        cores = sorted(os.sched_getaffinity(0))
        self._pipes: list[Connection] = []
        self._processes = []
        for index in range(num_processes):
            ours, theirs = spawn.Pipe()
            share = numbered[index::num_processes]
            process = spawn.Process(
                target=_serve, args=(theirs, cores[index % len(cores)], share, context), daemon=True
            )
            process.start()
            self._pipes.append(ours)
            self._processes.append(process)

    def run(self, function: Callable[..., Any]) -> list[float]:
        """Let all do ``function`` with their shares at once; processor seconds of each."""
        return [seconds for seconds, _ in self._all(function, answer=False)]

    def ask(self, function: Callable[..., Any]) -> list[Any]:
        """Let all do ``function`` with their shares at once; what each gives."""
        return [given for _, given in self._all(function, answer=True)]

    def _all(self, function: Callable[..., Any], *, answer: bool) -> list[tuple[float, Any]]:
        for pipe in self._pipes:
            pipe.send((function, answer))
        return [pipe.recv() for pipe in self._pipes]

    def close(self) -> None:
        """End the processes."""
        for pipe, process in zip(self._pipes, self._processes, strict=True):
            pipe.send(None)
            process.join()


def _serve(
    pipe: Connection, core: int, share: Sequence[tuple[int, Partition]], context: Context
) -> None:
    os.sched_setaffinity(0, {core})
    while (job := pipe.recv()) is not None:
        function, answer = job
        began = time.process_time()
        given = function(share, context)
        pipe.send((time.process_time() - began, given if answer else None))


def start_peak() -> int:
    """Resident bytes of this process now; `peak` counts from here."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return resident("VmRSS")


def peak() -> int:
    """Highest resident bytes of this process since `start_peak`."""
    return resident("VmHWM")


def resident(name: str) -> int:
    """Bytes of one entry of /proc/self/status."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise LookupError(name)
