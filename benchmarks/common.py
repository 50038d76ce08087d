"""What all benchmarks share: options, one core, interleaved repeats and the closing JSON line."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import data
import uproot
from isal import isal_zlib

from mlaas4hep_dask.reader import Partition, plan_file
from mlaas4hep_dask.specs import Branch

LIBRARIES = ("mlaas4hep_dask", "awkward", "dask", "numba", "numpy", "torch", "uproot")
INPUTS = ["flat_*", "*_v*"]  # not the counters nElectron, nJet, …


def options(description: str, **more: dict[str, Any]) -> argparse.Namespace:
    """The parsed options: those of every benchmark, and ``more`` of this one."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--events", type=int, default=200_000, help="events to generate and use")
    parser.add_argument(
        "--compression", choices=("zlib", "lz4", "zstd"), default="zlib", help="codec of the files"
    )
    parser.add_argument("--repeats", type=int, default=5, help="counted, interleaved repeats")
    parser.add_argument(
        "--data",
        type=Path,
        default=Path(tempfile.gettempdir()) / "mlaas4hep_dask-benchmarks",
        help="folder of generated files, which are kept",
    )
    for name, settings in more.items():
        parser.add_argument(f"--{name.replace('_', '-')}", **settings)
    parsed = parser.parse_args()
    if parsed.events < 1 or parsed.repeats < 1:
        parser.error("--events and --repeats are at least 1")
    return parsed


def pin_to_one_core() -> None:
    """Keep this process on one core."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


@dataclass(frozen=True)
class Comparison:
    """Medians over interleaved repeats; ``ratio`` is the reference's time over ours."""

    seconds: float
    reference_seconds: float
    ratio: float


def compare(
    ours: Callable[[], object], reference: Callable[[], object], repeats: int
) -> Comparison:
    """Time both in turns after one uncounted run of each."""
    times: list[tuple[float, float]] = []
    for number in range(repeats + 1):
        pair = []
        for run in (ours, reference):
            began = time.perf_counter()
            run()
            pair.append(time.perf_counter() - began)
        if number:
            times.append((pair[0], pair[1]))
    return Comparison(
        statistics.median(a for a, _ in times),
        statistics.median(b for _, b in times),
        statistics.median(b / a for a, b in times),
    )


def close(
    stage: str, events: int, result: Comparison, *, reference: str, cores: int, **more: Any
) -> None:
    """Print the JSON object that ends every benchmark."""
    print(
        json.dumps(
            {
                "stage": stage,
                "events": events,
                "seconds": round(result.seconds, 6),
                "events_per_second": round(events / result.seconds, 1),
                "reference": reference,
                "reference_events_per_second": round(events / result.reference_seconds, 1),
                "ratio": round(result.ratio, 4),
                "cores": cores,
                "versions": {
                    "python": platform.python_version(),
                    **{library: version(library) for library in LIBRARIES},
                },
                **more,
            }
        )
    )


@dataclass(frozen=True)
class Files:
    """Generated files, planned."""

    paths: list[Path]
    partitions: list[Partition]
    branches: tuple[Branch, ...]


def planned_files(parsed: argparse.Namespace) -> Files:
    """The files of the options, with one partition per cluster."""
    paths = data.generate(parsed.data, events=parsed.events, compression=parsed.compression)
    partitions: list[Partition] = []
    branches: tuple[Branch, ...] = ()
    for path in paths:
        plan = plan_file(str(path), "Events", path.name.split("_")[0])
        branches = tuple(b for name, b in sorted(plan.branches.items()) if "_" in name)
        partitions += plan.planned([branch.name for branch in branches]).partitions(
            target_bytes=1 << 40, max_events=data.CLUSTER_EVENTS, num_entries=plan.num_entries
        )
    return Files(paths, partitions, branches)


def uproot_iterate(files: Files) -> int:
    """Events read by bare uproot, cluster by cluster, with the decompressor that we use.

    ``uproot.ZLIB.library`` has no effect on reading; the instance that reads has its own.
    """
    reader = uproot.compression._decompress_ZLIB
    earlier, reader.library = reader.library, "isal"
    assert isal_zlib is not None
    try:
        names = [branch.name for branch in files.branches]
        return sum(
            len(events)
            for events in uproot.iterate(
                {str(path): "Events" for path in files.paths},
                expressions=names,
                step_size=data.CLUSTER_EVENTS,
                handler=uproot.MemmapSource,
            )
        )
    finally:
        reader.library = earlier


REFERENCE_READ = "uproot.iterate, one cluster at a time, isal for zlib, memory-mapped"
