"""Processor time of workers that are batch jobs, against workers of a local cluster.

The work is the specs pass, and reading and encoding to dense rows, in turns in one run, on two
workers each. Only what the worker processes themselves take is compared: settings that do not reach
them, such as those of malloc, show here. Run it where jobs can be submitted; `--here` starts a
SLURM or an HTCondor pool of the tests on this machine first.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import common
import data
import work

from mlaas4hep_dask import Dataset, connect
from mlaas4hep_dask.dataset.collecting import collect
from mlaas4hep_dask.dataset.specs_pass import file_pieces

WORKERS = 2
JOBS = ("specs", "encode")


def main() -> None:
    parsed = common.options(
        __doc__.splitlines()[0],
        system={"choices": ("slurm", "htcondor"), "default": "slurm", "help": "batch system"},
        site={"help": "name or file of a site"},
        here={"action": "store_true", "help": "start the batch system on this machine"},
        times={"type": int, "default": 8, "help": "names of every file, all of which are read"},
    )
    paths = data.generate(parsed.data, events=parsed.events, compression=parsed.compression)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=parsed.data)))
        if parsed.here:
            os.environ.update(stack.enter_context(_service(parsed.system)).environment)
        links = data.linked(paths, folder, times=parsed.times)
        config = common.write_config(folder / "a.yaml", links)
        options: dict[str, Any] = {"workers": WORKERS, "memory_limit": "2 GiB", "ranks": 0}
        sides = {"reference": stack.enter_context(connect("local", **options))}
        batch = connect(parsed.system, site=parsed.site, jobs=folder / "jobs", **options)
        sides["ours"] = stack.enter_context(batch)
        report(parsed, {side: Dataset.from_yaml(config, each) for side, each in sides.items()})


def report(parsed: Any, datasets: dict[str, Dataset]) -> None:
    """Do the work in turns and print the JSON line."""
    runs = {side: _runs(dataset) for side, dataset in datasets.items()}
    seconds: dict[str, dict[str, list[float]]] = {job: {side: [] for side in runs} for job in JOBS}
    for turn in range(parsed.repeats + 1):
        for job in JOBS:
            for side in sorted(runs, reverse=bool(turn % 2)):
                spent = _spent(datasets[side], runs[side][job])
                if turn:
                    seconds[job][side].append(spent)
    ratios = {
        job: statistics.median(
            theirs / ours for ours, theirs in zip(both["ours"], both["reference"], strict=True)
        )
        for job, both in seconds.items()
    }
    worst = min(JOBS, key=ratios.__getitem__)
    common.close(
        "batch",
        datasets["ours"].plan().num_events,
        common.Comparison(
            statistics.median(seconds[worst]["ours"]),
            statistics.median(seconds[worst]["reference"]),
            ratios[worst],
        ),
        reference="processor time of two workers of a local cluster; the lower ratio of the jobs",
        cores=len(os.sched_getaffinity(0)),
        system=parsed.system,
        compression=parsed.compression,
        ratios={job: round(ratio, 4) for job, ratio in ratios.items()},
    )


def _runs(dataset: Dataset) -> dict[str, Callable[[], object]]:
    """What the workers of a data set's cluster do; its plan and specs are made first."""
    blocks, client = dataset.blocks(), dataset.cluster.client
    client.upload_file(work.__file__)

    def specs() -> None:
        pieces = file_pieces(dataset.plan(), None, {})
        collect(dataset.cluster, pieces, blocks.context, token=uuid.uuid4().hex)

    def encode() -> None:
        token = uuid.uuid4().hex
        keys = [(f"work-{token}", number) for number in range(len(blocks.partitions))]
        graph: dict[Any, Any] = {"context": blocks.context}
        for key, partition in zip(keys, blocks.partitions, strict=True):
            graph[key] = (work.encode_one, partition, "context")
        client.get(graph, keys)

    return {"specs": specs, "encode": encode}


def _spent(dataset: Dataset, run: Callable[[], object]) -> float:
    """Processor seconds that the workers take for something."""
    client = dataset.cluster.client
    before = sum(client.run(time.process_time).values())
    run()
    return sum(client.run(time.process_time).values()) - before


def _service(system: str) -> Any:
    """A batch system of this machine, as the tests start it."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    if system == "slurm":
        from services.slurm import Slurm

        return Slurm(cpus=4, memory=16000)
    from services.htcondor import HTCondor

    return HTCondor(cpus=4, memory=16000)


if __name__ == "__main__":
    main()
