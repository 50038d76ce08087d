"""What all benchmarks share: options, one core, interleaved repeats and the closing JSON line."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import data
import plain
from baskets import compressed_blocks, decompress, passes

from mlaas4hep_dask.config.sections import Partitioning
from mlaas4hep_dask.events import Branch
from mlaas4hep_dask.reader import Partition, plan_file, read

LIBRARIES = ("mlaas4hep_dask", "awkward", "dask", "numba", "numpy", "torch", "uproot")
INPUTS = ["flat_*", "*_v*"]  # not the counters nElectron, nJet, …
PUBLISHED: dict[str, dict[str, Any]] = {  # sections of dataset.yaml
    "model": {"callable": "mlaas4hep_dask.train.network:mlp"},
    "training": {
        "epochs": 5,
        "batch_size": 100,
        "learning_rate": 1e-3,
        "optimiser": {"callable": "Adam", "kwargs": {"fused": True}},
        "scheduler": None,
    },
}


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
    """Medians over interleaved repeats; a ratio is the reference's time over ours.

    ``cpu_ratio`` compares the processor time of this process alone. On a busy machine it is the
    steadier of the two, and it means nothing when the work is done by other processes.
    """

    seconds: float
    reference_seconds: float
    ratio: float
    cpu_ratio: float | None = None


Times = dict[str, list[tuple[float, float]]]  # wall and processor seconds of every repeat


def time_in_turns(runs: Mapping[str, Callable[[], object]], repeats: int) -> Times:
    """Time all in turns, in the other order every second turn, after one uncounted turn."""
    times: Times = {name: [] for name in runs}
    for number in range(repeats + 1):
        for name in list(runs) if number % 2 else list(reversed(runs)):
            wall, processor = time.perf_counter(), time.process_time()
            runs[name]()
            spent = (time.perf_counter() - wall, time.process_time() - processor)
            if number:
                times[name].append(spent)
    return times


def comparison(ours: list[tuple[float, float]], other: list[tuple[float, float]]) -> Comparison:
    """Compare two entries of `time_in_turns`."""
    pairs = list(zip(ours, other, strict=True))
    return Comparison(
        statistics.median(wall for wall, _ in ours),
        statistics.median(wall for wall, _ in other),
        statistics.median(b[0] / a[0] for a, b in pairs),
        statistics.median(b[1] / max(a[1], 1e-9) for a, b in pairs),
    )


def compare(
    ours: Callable[[], object], reference: Callable[[], object], repeats: int
) -> Comparison:
    """Time both in turns after one uncounted run of each."""
    times = time_in_turns({"ours": ours, "reference": reference}, repeats)
    return comparison(times["ours"], times["reference"])


def compare_with(
    ours: Callable[[], object],
    references: Mapping[str, Callable[[], object]],
    repeats: int,
) -> dict[str, Comparison]:
    """Ours against several references, all in the same turns."""
    times = time_in_turns({"ours": ours, **references}, repeats)
    return {name: comparison(times["ours"], times[name]) for name in references}


def ratios(results: Mapping[str, Comparison]) -> dict[str, dict[str, float]]:
    """The ratios of several comparisons, as they stand in the JSON line."""
    return {
        "ratios": {name: round(result.ratio, 4) for name, result in results.items()},
        "cpu_ratios": {
            name: round(result.cpu_ratio, 4)
            for name, result in results.items()
            if result.cpu_ratio is not None
        },
    }


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
    """The files of the options, in partitions as a run makes them by default."""
    paths = data.generate(parsed.data, events=parsed.events, compression=parsed.compression)
    size = Partitioning()
    partitions: list[Partition] = []
    branches: tuple[Branch, ...] = ()
    for path in paths:
        plan = plan_file(str(path), "Events", path.name.split("_")[0])
        branches = tuple(b for name, b in sorted(plan.branches.items()) if "_" in name)
        partitions += plan.planned([branch.name for branch in branches]).partitions(
            target_bytes=size.target_bytes,
            max_events=size.max_events,
            num_entries=plan.num_entries,
        )
    return Files(paths, partitions, branches)


def published(**training: Any) -> dict[str, dict[str, Any]]:
    """Sections of dataset.yaml for the published network, with other keys of its training."""
    return {**PUBLISHED, "training": {**PUBLISHED["training"], **training}}


def as_options(sections: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The same as --set takes it."""
    return [
        f"{section}.{key}={json.dumps(value)}"
        for section, keys in sections.items()
        for key, value in keys.items()
    ]


def write_config(file: Path, paths: list[Path], **sections: Any) -> Path:
    """``file``, a dataset.yaml of the generated files with these further sections."""
    config = {
        "name": file.stem,
        "samples": [
            {
                "name": kind,
                "label": label,
                "files": [str(path) for path in paths if path.name.startswith(kind)],
            }
            for kind, label in (("signal", 1), ("background", 0))
        ],
        "branches": {"include": INPUTS},
        "specs": {"cache": None},  # every run reads the events
        **sections,
    }
    file.write_text(json.dumps(config), encoding="utf-8")  # JSON is YAML
    return file


def uproot_iterate(files: Files, zlib_library: str = "zlib") -> int:
    """Events read by bare uproot, cluster by cluster."""
    names = [branch.name for branch in files.branches]
    return plain.read(files.paths, names, zlib_library=zlib_library)


def read_all(files: Files) -> None:
    """Read every partition; the events are let go."""
    for partition in files.partitions:
        read(partition, files.branches)


READ_REFERENCES = {
    "uproot": "uproot.iterate as it comes, one cluster at a time, memory-mapped",
    "uproot-isal": "the same with isal, the fastest that uproot can use for zlib",
    "decompression": "decompression of the same baskets, with the same libraries, unchecked",
    "passes": "a loop that copies the same baskets from the file, compares the checksums of lz4, "
    "decompresses and copies to native byte order, and does nothing else",
    "read": "our own read of the same partitions",
}


def reference_option(default: str) -> dict[str, Any]:
    """The option that chooses what the ratio of a benchmark that reads is taken with."""
    return {
        "choices": tuple(READ_REFERENCES),
        "default": default,
        "help": "what ratio is taken with",
    }


def close_read(
    stage: str,
    parsed: argparse.Namespace,
    ours: Callable[[], object],
    files: Files,
    others: Mapping[str, Callable[[], object]] | None = None,
    **more: Any,
) -> None:
    """Compare ``ours``, which reads all files, with all references, and print the JSON line.

    ``others`` are compared too, but are nothing that --reference can choose.
    """
    blocks, maps = compressed_blocks(files.paths)
    references: dict[str, Callable[[], object]] = {
        "uproot": lambda: uproot_iterate(files),
        "uproot-isal": lambda: uproot_iterate(files, "isal"),
        "decompression": lambda: decompress(blocks, maps),
        "passes": lambda: passes(blocks, maps),
        "read": lambda: read_all(files),
    }
    if parsed.compression != "zlib":
        del references["uproot-isal"]
    if parsed.reference not in references:
        sys.exit(f"--reference {parsed.reference} goes with --compression zlib only")
    results = compare_with(ours, {**references, **(others or {})}, parsed.repeats)
    close(
        stage,
        parsed.events,
        results[parsed.reference],
        reference=READ_REFERENCES[parsed.reference],
        cores=1,
        compression=parsed.compression,
        **ratios(results),
        **more,
    )
