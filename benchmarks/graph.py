"""Graphs of very many partitions: seconds and memory to build them, each in a fresh process.

A real plan is cut so finely that it has --partitions partitions. ``specs`` is the graph of the
specs pass, ``blocks`` the five lazy arrays of `Dataset.to_dask`. Memory is the highest resident
size while the graph is built, less the size before. Seconds are processor seconds.
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import common
import data
import work
from distributed import Client, LocalCluster

from mlaas4hep_dask.dataset import Dataset
from mlaas4hep_dask.dataset.measuring import measure_pieces
from mlaas4hep_dask.dataset.reduce import Groups
from mlaas4hep_dask.dataset.specs_pass import file_pieces

LIMIT_SECONDS = 5.0
LIMIT_BYTES = 500e6


def main() -> None:
    parsed = common.options(
        __doc__.splitlines()[0],
        partitions={"type": int, "default": 100_000, "help": "partitions of the graphs"},
        graph={"choices": ("specs", "blocks"), "default": None, "help": argparse.SUPPRESS},
    )
    if parsed.graph:
        print(json.dumps(build(parsed)))
        return
    data.generate(parsed.data, events=parsed.events, compression=parsed.compression)
    runs: dict[str, list[dict[str, float]]] = {"specs": [], "blocks": []}
    for _ in range(parsed.repeats):
        for graph in runs:
            command = [sys.executable, *sys.argv, "--graph", graph]
            done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
            runs[graph].append(json.loads(done.stdout.splitlines()[-1]))
    found = {
        graph: sorted(each, key=lambda run: run["seconds"])[len(each) // 2]
        for graph, each in runs.items()
    }
    slowest = max(run["seconds"] for run in found.values())
    common.close(
        "graph",
        parsed.events,
        common.Comparison(slowest, LIMIT_SECONDS, LIMIT_SECONDS / slowest),
        reference=f"{LIMIT_SECONDS:g} s and {LIMIT_BYTES / 1e6:g} MB",
        cores=1,
        partitions=parsed.partitions,
        graphs=found,
        within_limits=all(
            run["seconds"] < LIMIT_SECONDS and run["bytes"] < LIMIT_BYTES for run in found.values()
        ),
    )


def build(parsed: argparse.Namespace) -> dict[str, float]:
    """Build one of the graphs; called in a process of its own."""
    paths = data.generate(parsed.data, events=parsed.events, compression=parsed.compression)
    with (
        tempfile.TemporaryDirectory() as folder,
        LocalCluster(n_workers=1, processes=False, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        coarse = Dataset.from_yaml(common.write_config(Path(folder) / "coarse.yaml", paths), client)
        measured = coarse._measure()
        size = {"target_bytes": 1 << 40, "max_events": max(1, parsed.events // parsed.partitions)}
        file = common.write_config(Path(folder) / "fine.yaml", paths, partition=size)
        fine = Dataset.from_yaml(file, client)
        plan = fine.plan()
        # Counting the events of 100,000 partitions takes minutes, and is not what is timed.
        counts = {number: (len(part), 0, 0) for number, part in enumerate(plan.partitions)}
        fine._measured = replace(measured, split_counts=counts)
        gc.collect()
        before = work.start_peak()
        began, processor = time.perf_counter(), time.process_time()
        graphs: list[Any]
        if parsed.graph == "specs":
            pieces = file_pieces(plan, None, {})
            # Of the largest cluster, with one partition per task; sent bit by bit, all held here.
            graphs = [
                group.graph("context", token=fine.token(), function=measure_pieces)[0]
                for group in Groups(pieces, threads=len(plan.partitions))
            ]
        else:
            graphs = [array.dask for array in fine.to_dask()]
        found = {
            "seconds": time.process_time() - processor,
            "wall_seconds": time.perf_counter() - began,
            "bytes": work.peak() - before,
        }
        tasks = len({key for graph in graphs for key in graph})
        return {**found, "tasks": tasks, "partitions": len(plan.partitions)}


if __name__ == "__main__":
    main()
