"""A simulated month: many partitions through workers that all die again and again.

Every worker gets a life of --shortest to --longest seconds, drawn with a seed, and is then ended by
SIGKILL, as batch jobs are at their walltime, and started again. A partition takes --seconds beside
its reading, as if it came from far away, so that what happens does not depend on the machine.
``redone`` is the part of the work that was done more than once: events of partitions that were
measured, beyond those that there are. ``memory_growth`` compares the memory of scheduler and client
in the last tenth of the time with that in the second. Beyond --most-redone or --most-growth the
script ends with an error. The reference is the same work on workers that live: a tenth of it, ten
times.
"""

from __future__ import annotations

import os
import signal
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import common
import data
import numpy as np
import work
from distributed import Client

from mlaas4hep_dask.cluster import connect
from mlaas4hep_dask.config.sections import Cluster
from mlaas4hep_dask.dataset import Dataset
from mlaas4hep_dask.dataset.progress import PROGRESS
from mlaas4hep_dask.report.figures import Line, line_chart
from mlaas4hep_dask.waiting import ClusterHandle, Patience, processes, workers_of

FAR = """
import time


def far(events):
    time.sleep({seconds})
    return events
"""
STYLE = """<style>
svg { color-scheme: light dark; --text: #5a6675; --c0: #0072b2; --c1: #d55e00; --c2: #009e73; }
@media (prefers-color-scheme: dark) {
  svg { --text: #9aa7b5; --c0: #56b4e9; --c1: #ff8a3d; --c2: #33c99a; }
}
text { fill: var(--text); font-family: system-ui, sans-serif; }
.axis, .grid { stroke: var(--text); }
.grid { stroke-opacity: 0.25; }
.line { stroke-width: 1.5; }
.c0 { stroke: var(--c0); } .c1 { stroke: var(--c1); } .c2 { stroke: var(--c2); }
</style>
"""
LOOK_EVERY = 0.2  # seconds
SAMPLE_EVERY = 1.0
TENTH = 10


@dataclass(eq=False)
class Churn(threading.Thread):
    """Ends workers when their time has come, and notes what it sees, until it is told to stop.

    Parameters
    ----------
    client : distributed.Client
        Of a local cluster, which starts them again.
    lives : (float, float)
        The shortest and the longest, in seconds.
    seed : int
        Of the lives.
    """

    client: Client
    lives: tuple[float, float]
    seed: int
    num_done: int = 0
    num_deaths: int = 0
    samples: list[tuple[float, int, int, int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(daemon=True)
        self._is_over = threading.Event()

    def hear(self, num_events: int) -> None:
        """Count the events of a partition that was measured."""
        self.num_done += num_events

    def run(self) -> None:
        """Look until it is over."""
        handle, chance = ClusterHandle(self.client), np.random.default_rng(self.seed)
        ends: dict[str, float] = {}  # by process: when it is ended
        began = sampled = time.monotonic()
        while not self._is_over.wait(LOOK_EVERY):
            now = time.monotonic()
            for address, process in processes(handle.alive()).items():
                if now > ends.setdefault(process, now + chance.uniform(*self.lives)):
                    pid = workers_of(self.client).processes.pid(address)
                    if pid is not None:
                        os.kill(pid, signal.SIGKILL)
                        self.num_deaths += 1
                        ends[process] = now + self.lives[1]  # it is gone in a moment
            if now - sampled >= SAMPLE_EVERY:
                sampled = now
                num_tasks = len(self.client.cluster.scheduler.tasks)
                memory = work.resident("VmRSS")
                seen = (now - began, self.num_done, self.num_deaths, memory, num_tasks)
                self.samples.append(seen)

    def stop(self) -> None:
        """End the thread."""
        self._is_over.set()
        self.join()


def main() -> None:
    parsed = common.options(
        __doc__.splitlines()[0],
        partitions={"type": int, "default": 10_000, "help": "partitions"},
        partition_events={"type": int, "default": 250, "help": "events of a partition"},
        workers={"type": int, "default": 4, "help": "workers"},
        seconds={"type": float, "default": 0.15, "help": "seconds of a partition beside reading"},
        shortest={"type": float, "default": 20.0, "help": "shortest life of a worker, in seconds"},
        longest={"type": float, "default": 60.0, "help": "longest life of a worker, in seconds"},
        seed={"type": int, "default": 1, "help": "seed of the lives"},
        most_redone={"type": float, "default": 0.15, "help": "part of the work redone at most"},
        most_growth={"type": float, "default": 1.1, "help": "growth of memory at most"},
        plot={"type": Path, "help": "an SVG file of what happened"},
    )
    links = max(1, parsed.partitions // (4 * TENTH))
    per_file = max(1, parsed.partitions // (4 * links)) * parsed.partition_events
    paths = data.generate(
        parsed.data,
        events=4 * per_file,
        compression=parsed.compression,
        cluster_events=parsed.partition_events,
    )
    with (
        tempfile.TemporaryDirectory(dir=parsed.data) as name,
        connect(Cluster(workers=parsed.workers), ranks=1) as client,
    ):
        folder = Path(name)
        (folder / "far.py").write_text(FAR.format(seconds=parsed.seconds), encoding="utf-8")

        # As of batch clusters: on a busy machine it takes a while until workers are there again.
        patient = ClusterHandle(client, Patience(no_worker=3600.0))

        def dataset_of(times: int) -> Dataset:
            (folder / str(times)).mkdir()
            sections = {
                "branches": {"include": ["flat_00", "flat_01"]},
                "partition": {"max_events": parsed.partition_events, "target_bytes": 2**40},
                "function": {"callable": f"{folder}/far.py:far"},
            }
            linked = data.linked(paths, folder / str(times), times=times)
            file = common.write_config(folder / f"{times}.yaml", linked, **sections)
            dataset = Dataset.from_yaml(file, patient)
            dataset.plan()
            return dataset

        calm = dataset_of(max(1, links // TENTH))
        calm_seconds = timed(calm.specs)
        reference = calm_seconds * links / max(1, links // TENTH)
        dataset = dataset_of(links)
        churn = Churn(client, (parsed.shortest, parsed.longest), parsed.seed)
        client.subscribe_topic(PROGRESS, lambda event: churn.hear(event[1]))
        churn.start()
        try:
            seconds = timed(dataset.specs)
        finally:
            churn.stop()
        report(parsed, dataset, calm, churn, seconds, reference)


def timed(run: Callable[[], object]) -> float:
    """Seconds that something takes."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def report(
    parsed: Any, dataset: Dataset, calm: Dataset, churn: Churn, seconds: float, reference: float
) -> None:
    """Check that every event was counted once, draw and print the JSON line."""
    partitions = dataset.plan().partitions
    total = sum(map(len, partitions))
    specs, few = dataset.specs(), calm.specs()
    times = total // few.num_events
    once = (
        specs.num_events == total
        and len(dataset.split_counts()) == len(partitions)
        and all(
            specs.branches[each].moments.num_values == times * few.branches[each].moments.num_values
            and abs(specs.branches[each].mean - few.branches[each].mean) < 1e-12
            for each in few.branches
        )
    )
    if not once:
        raise SystemExit("events are missing, or were counted twice")
    memory = [sample[3] for sample in churn.samples]
    num_tasks = [sample[4] for sample in churn.samples]
    part = max(1, len(memory) // TENTH)
    early = memory[part : 2 * part] or memory  # of which there are few in a short run
    growth = statistics.mean(memory[-part:]) / statistics.mean(early) if memory else 1.0
    redone = round(max(churn.num_done / total - 1, 0.0), 4)
    if parsed.plot:
        parsed.plot.write_text(drawn(churn, total), encoding="utf-8")
    common.close(
        "churn",
        total,
        common.Comparison(seconds, reference, reference / seconds),
        reference="the same work on workers that live",
        cores=len(os.sched_getaffinity(0)),
        partitions=len(partitions),
        workers=parsed.workers,
        deaths=churn.num_deaths,
        every_event_once=once,
        redone=redone,
        memory_growth=round(growth, 4),
        most_tasks=max(num_tasks, default=0),
    )
    if beyond := excess(redone, parsed.most_redone, growth, parsed.most_growth):
        raise SystemExit(beyond)


def excess(redone: float, most_redone: float, growth: float, most_growth: float) -> str:
    """What is beyond its bound, in words; empty when nothing is."""
    words = []
    if redone > most_redone:
        words.append(f"{redone:.1%} of the work was done again, and {most_redone:.1%} may be")
    if growth > most_growth:
        words.append(f"memory grew to {growth:.2f} of what it was, and {most_growth:.2f} may be")
    return "; ".join(words)


def drawn(churn: Churn, total: int) -> str:
    """The figure: shares of what was done, of deaths, and of memory, over the minutes."""
    minutes = [sample[0] / 60 for sample in churn.samples]
    most = max(sample[3] for sample in churn.samples)
    deaths = max(churn.num_deaths, 1)
    redone = max(churn.num_done / total - 1, 0.0)
    title = (
        f"{total // 1000:,} thousand events while workers died {churn.num_deaths} times: "
        f"{redone:.1%} of the work was done again"
    )
    lines = [
        Line("measured, of all events", minutes, [sample[1] / total for sample in churn.samples]),
        Line("deaths of workers, of all", minutes, [s[2] / deaths for s in churn.samples]),
        Line("memory of scheduler and client", minutes, [s[3] / most for s in churn.samples]),
    ]
    figure = line_chart(
        lines, title=title, x_label="minutes", y_label="share", y_range=(0.0, 1.1), size=(640, 320)
    )
    start, _, rest = figure.partition(">")
    return f"{start}>{STYLE}{rest}\n"


if __name__ == "__main__":
    main()
