"""Batch workers: how soon a lost one is replaced, and their processor time against local ones.

First jobs are lost, ended by the batch system or killed with their processes, in turns; it is
measured when the queue shows another. Then workers work, two on each side, in turns in one run: the
specs pass, and reading and encoding to dense rows. Only what the worker processes themselves take
is compared: settings that do not reach them, such as those of malloc, show here. With `--copies`
a third part makes all blocks with and without a copy in a folder, as batch workers do. Each part
ends with a JSON line. Run it where jobs can be submitted; `--here` starts a SLURM or an HTCondor
pool of the tests on this machine first.
"""

from __future__ import annotations

import os
import signal
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
import psutil
import work
import yaml
from distributed import wait

from mlaas4hep_dask import Dataset, connect
from mlaas4hep_dask.cluster.batch.records import Driver
from mlaas4hep_dask.cluster.session import Session
from mlaas4hep_dask.cluster.sites import load_site
from mlaas4hep_dask.cluster.systems.queue import Queue
from mlaas4hep_dask.cluster.systems.registry import QUEUES
from mlaas4hep_dask.dataset.collecting import collect
from mlaas4hep_dask.dataset.specs_pass import file_pieces
from mlaas4hep_dask.gang import KeptBlocks
from mlaas4hep_dask.gang.diskcache import folder_of, remove_shared

WORKERS = 2
JOBS = ("specs", "encode")
REPLACED = 5.0  # seconds in which a lost job is to be back in the queue
PATIENCE = 300.0


def main() -> None:
    parsed = common.options(
        __doc__.splitlines()[0],
        system={"choices": ("slurm", "htcondor"), "default": "slurm", "help": "batch system"},
        site={"help": "name or file of a site"},
        here={"action": "store_true", "help": "start the batch system on this machine"},
        copies={"type": Path, "help": "folder that the workers see: what copies of blocks cost"},
        times={"type": int, "default": 8, "help": "names of every file, all of which are read"},
    )
    paths = data.generate(parsed.data, events=parsed.events, compression=parsed.compression)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=parsed.data)))
        if parsed.here:
            os.environ.update(stack.enter_context(_service(parsed.system)).environment)
        links = data.linked(paths, folder, times=parsed.times)
        config = common.write_config(folder / "a.yaml", links)
        options: dict[str, Any] = {"memory_limit": "2 GiB", "ranks": 0}
        site = write_site(folder / "site.yaml", parsed)
        ours = connect(parsed.system, site=str(site), jobs=folder / "jobs", **options)
        sides = {"ours": stack.enter_context(ours)}
        report_losses(parsed, site, sides["ours"])
        if parsed.copies is not None:
            report_copies(parsed, Dataset.from_yaml(config, sides["ours"]))
        local = connect("local", workers=WORKERS, **options)
        sides["reference"] = stack.enter_context(local)
        report(parsed, {side: Dataset.from_yaml(config, each) for side, each in sides.items()})


def write_site(file: Path, parsed: Any) -> Path:
    """A site as the one that was asked for, whose workers are as many all the time."""
    base = parsed.site or parsed.system
    if Path(base).exists():
        base = str(Path(base).absolute())
    size = {"minimum": WORKERS, "maximum": WORKERS}
    options = {"title": "a benchmark", "base": base, "readers": size}
    file.write_text(yaml.safe_dump({"mlaas4hep": options}))
    return file


def report_losses(parsed: Any, site: Path, cluster: Session) -> None:
    """Lose jobs one after the other, and print the JSON line."""
    queue, delays = QUEUES[parsed.system](load_site(str(site)).queue_options), []
    run = Driver.read(next((site.parent / "jobs").iterdir())).run
    ways = ["cancelled", "killed"] if parsed.here else ["cancelled"]
    for turn in range(parsed.repeats):
        for way in ways:
            cluster.wait_for_workers(WORKERS, "benchmark", seconds=PATIENCE, group="readers")
            before = _jobs(queue, run)
            if way == "killed":
                _kill(sorted(cluster.client.run(os.getpid).values())[turn % WORKERS])
            else:
                queue.cancel([min(job for job, state in before.items() if state == "running")])
            began = time.perf_counter()
            while not _jobs(queue, run).keys() - before.keys():
                if time.perf_counter() - began > PATIENCE:
                    sys.exit(f"a job that was {way} is not replaced within {PATIENCE:.0f} s")
            delays.append(time.perf_counter() - began)
    cluster.wait_for_workers(WORKERS, "benchmark", seconds=PATIENCE, group="readers")
    worst = max(delays)
    common.close(
        "lost jobs",
        len(delays),
        common.Comparison(worst, REPLACED, REPLACED / worst),
        reference=f"{REPLACED:g} s, in which each is to be back in the queue; the worst counts",
        cores=len(os.sched_getaffinity(0)),
        system=parsed.system,
        delays=[round(delay, 3) for delay in delays],
    )


def _jobs(queue: Queue, run: str) -> dict[str, str]:
    """States, by id, of the jobs that this run has in the queue, and of no other."""
    began = time.perf_counter()
    while (seen := queue.seen()) is None:
        if time.perf_counter() - began > PATIENCE:
            sys.exit(f"the batch system has not answered for {PATIENCE:.0f} s")
        time.sleep(0.2)  # between two questions
    return {job: each.state for job, each in seen.items() if f"-{run}-" in each.name}


def _kill(process: int) -> None:
    """End a worker of this machine and the nanny that would start it again."""
    nanny = psutil.Process(process).parent()
    for each in (nanny, *nanny.children(recursive=True)):
        each.send_signal(signal.SIGKILL)


def report_copies(parsed: Any, dataset: Dataset) -> None:
    """Make all blocks in turns with copies on disk and without, and print the JSON line."""
    plan, cluster, folder = dataset.blocks(), dataset.cluster, str(parsed.copies.absolute())
    ways = {"ours": KeptBlocks.of(plan, folder=folder), "reference": KeptBlocks.of(plan)}
    spent: dict[str, list[float]] = {way: [] for way in ways}
    num_bytes = 0

    def make(way: str) -> None:
        nonlocal num_bytes
        before = sum(cluster.client.run(time.process_time).values())
        futures = [ways[way].submit(cluster, number) for number in range(len(plan.partitions))]
        wait(futures)
        spent[way].append(sum(cluster.client.run(time.process_time).values()) - before)
        files = [file.stat().st_size for file in folder_of(folder, plan.token).glob("*")]
        num_bytes = max(num_bytes, sum(files))

    def ours() -> None:
        remove_shared(folder, plan.token)
        make("ours")

    result = common.compare(ours, lambda: make("reference"), parsed.repeats)
    remove_shared(folder, plan.token)
    medians = {way: statistics.median(each[1:]) for way, each in spent.items()}
    common.close(
        "copies of blocks",
        dataset.plan().num_events,
        result,
        reference="the same blocks without copies on disk",
        cores=len(os.sched_getaffinity(0)),
        system=parsed.system,
        compression=parsed.compression,
        worker_cpu_ratio=round(medians["reference"] / medians["ours"], 4),
        bytes_of_copies=num_bytes,
    )


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
