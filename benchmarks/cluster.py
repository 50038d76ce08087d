"""Two workers of a local cluster, against two pinned processes that do the same work.

The work is the specs pass, and reading and encoding to dense rows, in turns in one run; who goes
first changes with every turn, since the speed of shared machines drifts. ``noop_ms``
is what the cluster takes per partition when there is nothing to do, and ``small_ms`` what it takes
for partitions of --small-events events each, beyond what the processes take. ``cpu_ratios`` compare
processor time: of the processes, over that of workers, scheduler and client together. The generated
files are linked under --times names each, so that there is as much work as clusters are used for.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import common
import data
import work
from distributed import Client

from mlaas4hep_dask.cluster import connect
from mlaas4hep_dask.config.sections import Cluster
from mlaas4hep_dask.dataset import Dataset
from mlaas4hep_dask.dataset.collecting import collect
from mlaas4hep_dask.dataset.specs_pass import file_pieces
from mlaas4hep_dask.inputs.context import Context
from mlaas4hep_dask.reader import Partition
from mlaas4hep_dask.waiting import ClusterHandle

WORKERS = 2
JOBS = ("specs", "encode")


def main() -> None:
    parsed = common.options(
        __doc__.splitlines()[0],
        times={"type": int, "default": 32, "help": "names of every file, all of which are read"},
        small_events={"type": int, "default": 250, "help": "events of small partitions"},
        num_small={"type": int, "default": 1_000, "help": "small partitions, and no-ops"},
        partition_events={"type": int, "help": "events of a partition, instead of the default"},
    )
    paths = data.generate(parsed.data, events=parsed.events, compression=parsed.compression)
    few = data.generate(
        parsed.data,
        events=parsed.small_events * parsed.num_small,
        compression=parsed.compression,
        cluster_events=parsed.small_events,
    )
    with (
        tempfile.TemporaryDirectory(dir=parsed.data) as folder,
        connect(Cluster(workers=WORKERS), ranks=WORKERS) as client,
    ):
        chosen = {"max_events": parsed.partition_events, "target_bytes": 2**40}
        sections = {"partition": chosen} if parsed.partition_events else {}
        links = data.linked(paths, Path(folder), times=parsed.times)
        config = common.write_config(Path(folder) / "a.yaml", links, **sections)
        dataset = Dataset.from_yaml(config, client)
        blocks = dataset.blocks()
        size = {"max_events": parsed.small_events}
        fine = common.write_config(Path(folder) / "fine.yaml", few, partition=size)
        small = Dataset.from_yaml(fine, client).plan().partitions
        report(parsed, client, dataset, blocks.partitions, blocks.context, small)


def report(
    parsed: Any,
    client: Client,
    dataset: Dataset,
    partitions: Sequence[Partition],
    context: Context,
    small: Sequence[Partition],
) -> None:
    """Time everything in turns and print the JSON line."""
    processes = work.PinnedProcesses(WORKERS, partitions, context)
    small_processes = work.PinnedProcesses(WORKERS, small, context)

    def through(function: Callable[..., Any], parts: Sequence[Partition]) -> None:
        context_key, token = "context", uuid.uuid4().hex
        graph: dict[Any, Any] = {context_key: context}
        keys = [(f"work-{token}", number) for number in range(len(parts))]
        graph |= {key: (function, part, context_key) for key, part in zip(keys, parts, strict=True)}
        client.get(graph, keys)

    handle = ClusterHandle(client)

    def specs() -> None:
        pieces = file_pieces(dataset.plan(), None, {})
        collect(handle, pieces, context, token=uuid.uuid4().hex)

    cluster: dict[str, Callable[[], object]] = {
        "specs": specs,
        "encode": lambda: through(work.encode_one, partitions),
        "noop": lambda: through(work.nothing, small),
        "small": lambda: through(work.encode_one, small),
    }
    direct: dict[str, Callable[[], list[float]]] = {
        "specs": lambda: processes.run(work.measure_all),
        "encode": lambda: processes.run(work.encode_all),
        "small": lambda: small_processes.run(work.encode_all),
    }
    walls: dict[str, list[tuple[float, float]]] = {name: [] for name in cluster}
    cpus: dict[str, list[tuple[float, float]]] = {name: [] for name in cluster}
    try:
        for turn in range(parsed.repeats + 1):
            for name, run in cluster.items():
                found = {}
                for side in ("ours", "direct") if turn % 2 else ("direct", "ours"):
                    found[side] = (
                        _timed(run, client) if side == "ours" else _alone(direct.get(name))
                    )
                if turn:
                    walls[name].append((found["ours"][0], found["direct"][0]))
                    cpus[name].append((found["ours"][1], found["direct"][1]))
    finally:
        processes.close()
        small_processes.close()
    ratios = {
        name: statistics.median(reference / ours for ours, reference in walls[name])
        for name in JOBS
    }
    worst = min(JOBS, key=ratios.__getitem__)
    noop = statistics.median(ours for ours, _ in walls["noop"]) / len(small)
    beyond = statistics.median(ours - reference for ours, reference in walls["small"]) / len(small)
    common.close(
        "cluster",
        sum(map(len, partitions)),
        common.Comparison(
            statistics.median(ours for ours, _ in walls[worst]),
            statistics.median(reference for _, reference in walls[worst]),
            ratios[worst],
        ),
        reference=f"{WORKERS} pinned processes that do the same work; the lower ratio of the jobs",
        cores=len(os.sched_getaffinity(0)),
        compression=parsed.compression,
        partitions=len(partitions),
        ratios={name: round(ratio, 4) for name, ratio in ratios.items()},
        cpu_ratios={
            name: round(statistics.median(b / a for a, b in cpus[name]), 4) for name in direct
        },
        noop_ms=round(noop * 1e3, 3),
        small_ms=round(beyond * 1e3, 3),
        small_partitions=len(small),
    )


def _timed(run: Callable[[], object], client: Client) -> tuple[float, float]:
    """Wall and processor seconds of something that the cluster does."""
    before, began = _cpu(client), time.perf_counter()
    run()
    wall = time.perf_counter() - began
    return wall, _cpu(client) - before


def _cpu(client: Client) -> float:
    """Processor seconds of the workers, and of this process, which is client and scheduler."""
    return time.process_time() + sum(client.run(time.process_time).values())


def _alone(run: Callable[[], list[float]] | None) -> tuple[float, float]:
    """Wall and processor seconds of what the pinned processes do; none if they have no part."""
    began = time.perf_counter()
    seconds = run() if run is not None else []
    return time.perf_counter() - began, sum(seconds)


if __name__ == "__main__":
    main()
