"""Memory of workers while much more data than they have memory for goes through them.

The generated files are linked under many names until --times times the memory limit of a worker
has to be read. The specs pass and the dense rows of all blocks go through two workers. ``peaks``
are the highest resident bytes of any worker during each, beyond those of an idle one, and ``ratio``
is what the limit leaves for data over the larger of them: above 1 means that all fitted.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import common
import data
import work
from dask.utils import parse_bytes
from distributed import Client

from mlaas4hep_dask.cluster import connect
from mlaas4hep_dask.config.sections import Cluster
from mlaas4hep_dask.dataset import Dataset


def main() -> None:
    parsed = common.options(
        __doc__.splitlines()[0],
        memory_limit={"default": "500 MB", "help": "memory limit of each worker"},
        times={"type": float, "default": 20.0, "help": "data in units of the memory limit"},
        target_bytes={"default": "24 MB", "help": "size of partitions"},
    )
    limit = parse_bytes(parsed.memory_limit)
    paths = data.generate(parsed.data, events=parsed.events, compression=parsed.compression)
    with (
        tempfile.TemporaryDirectory(dir=parsed.data) as folder,
        connect(Cluster(workers=2, memory_limit=limit), ranks=1) as client,
    ):
        one = Dataset.from_yaml(common.write_config(Path(folder) / "one.yaml", paths), client)
        names = [branch.name for branch in one.plan().branches]
        per_event = one.plan().files[0].bytes_per_event
        num_links = max(1, round(parsed.times * limit / (per_event * parsed.events)))
        links = data.linked(paths, Path(folder), times=num_links)
        size = {"target_bytes": parse_bytes(parsed.target_bytes)}
        config = common.write_config(Path(folder) / "many.yaml", links, partition=size)
        dataset = Dataset.from_yaml(config, client)
        report(parsed, client, dataset, limit, per_event, len(names))


def report(
    parsed: Any, client: Client, dataset: Dataset, limit: int, per_event: float, branches: int
) -> None:
    """Send all data through the workers twice and print the JSON line."""
    partitions = dataset.plan().partitions
    largest = max(map(len, partitions))
    num_events = sum(map(len, partitions))
    idle = max(client.run(work.resident, "VmRSS").values())

    def dense() -> int:
        blocks = dataset.blocks()
        graph: dict[Any, Any] = {"context": blocks.context, "total": (sum, [])}
        for number, part in enumerate(blocks.partitions):
            graph["dense", number] = (work.encode_one, part, "context")
            graph["total"][1].append(("dense", number))
        return int(client.get(graph, "total"))

    passes: dict[str, Callable[[], object]] = {"specs": dataset.specs, "dense": dense}
    peaks, seconds = {}, {}
    for name, run in passes.items():
        client.run(work.start_peak)
        began = time.perf_counter()
        run()
        seconds[name] = round(time.perf_counter() - began, 3)
        peaks[name] = max(client.run(work.peak).values()) - idle
    worst = max(peaks.values())
    columns = dataset.encoding().layout.num_columns
    common.close(
        "memory",
        num_events,
        common.Comparison(sum(seconds.values()), sum(seconds.values()), (limit - idle) / worst),
        reference="the memory limit of a worker, less what an idle one takes",
        cores=2,
        compression=parsed.compression,
        pass_seconds=seconds,
        memory_limit=limit,
        idle_bytes=idle,
        peaks=peaks,
        data_bytes=round(per_event * num_events),
        times_the_limit=round(per_event * num_events / limit, 2),
        partitions=len(partitions),
        partition_bytes=round(per_event * largest),
        dense_bytes=4 * columns * largest,
        branches=branches,
    )


if __name__ == "__main__":
    main()
