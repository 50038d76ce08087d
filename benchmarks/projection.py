"""Hours for 10 GB, 1 TB and 1 PB, from rates that are measured here and the numbers of a site.

Beside the published projection (Kuznetsov, Giommi and Bonacorsi, Comput. Softw. Big Sci. 2021), of
which 10 GB are 28.5 million events. ``ratio`` compares the passes over 10 GB on as many cores as
theirs had. With --check the model is held against runs of the whole command on this machine.
docs/explanation/projection.md explains the model and what is extrapolated.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import common
import data
from dask.utils import parse_bytes, parse_timedelta
from hours import CHECKPOINT, HOUR, Phase, Place, Projection, Rates, project
from rates import Meter
from stages import Stage, run_stages

from mlaas4hep_dask.cluster.sites import load_site
from mlaas4hep_dask.config.sections import Partitioning

CODECS = ("zlib", "zstd", "lz4")
EVENTS = 28.5e6  # of the published data set
STORED = 10.1e9 / EVENTS  # its bytes per event, zlib
SIZES = {"10 GB": 1.0, "1 TB": 100.0, "1 PB": 100_000.0}  # times EVENTS
PUBLISHED = {  # pass 1, and pass 2 by itself: reading and transformation
    "10 GB": ("35 min", "7 h"),
    "1 TB": ("O(100) h", "O(1 k) h"),
    "1 PB": ("O(100 k) h", "O(1 M) h"),
}
PUBLISHED_SECONDS = 35 * 60.0 + 7 * HOUR  # both passes over 10 GB
PUBLISHED_CORES = 4
TINY = 4_000  # events of the run that tells what does not depend on their number
TOLERANCE = 0.2
CHECKED = ("specs", "train")  # the stages whose seconds depend on the number of events
GRADIENTS = 4 * (711 * 128 + 128 + 128 * 64 + 64 + 64 + 1)  # bytes, of the published network


def main() -> None:
    parsed = _options()
    if parsed.check:
        check(parsed)
        return
    places = [machine(parsed), *sites(parsed)]
    rates = {}
    for codec in parsed.codecs:
        with Meter(parsed.data, parsed.events, codec, parsed.batch_size) as meter:
            for _ in range(parsed.repeats):
                meter.turn()
            rates[codec] = meter.rates()
        print(f"{codec}: " + ", ".join(map(_rate, rates[codec].items())))
    packed = next(iter(rates.values()))["packed"]  # about as large as what is read
    partition = min(Partitioning().max_events, Partitioning().target_bytes / packed)
    places = [replace(place, partition=partition) for place in places]
    found = {
        codec: {
            place.name: {
                size: project(times * EVENTS, scaled(rates, codec), place, epochs=parsed.epochs)
                for size, times in SIZES.items()
            }
            for place in places
        }
        for codec in rates
    }
    show(found)
    first = next(iter(rates))
    ours = found[first][places[0].name]["10 GB"]
    seconds = ours.specs.seconds + ours.encode.seconds
    common.close(
        "projection",
        int(EVENTS),
        common.Comparison(seconds, PUBLISHED_SECONDS, PUBLISHED_SECONDS / seconds),
        reference="the published projection of both passes over 10 GB, 7.6 h",
        cores=PUBLISHED_CORES,
        compression=first,
        processor_microseconds={
            codec: {name: round(1e6 * rate[name], 3) for name in rate if name not in BYTES}
            for codec, rate in rates.items()
        },
        bytes_per_event={
            codec: {name: round(rate[name], 1) for name in BYTES} for codec, rate in rates.items()
        },
        places=[_finite(asdict(place)) for place in places],
        hours={
            codec: {
                place: {size: _hours(each) for size, each in sizes.items()}
                for place, sizes in by_place.items()
            }
            for codec, by_place in found.items()
        },
    )


BYTES = ("stored", "packed")


def _options() -> argparse.Namespace:
    return common.options(
        __doc__.splitlines()[0],
        codecs={"nargs": "+", "choices": CODECS, "default": CODECS, "help": "codecs to project"},
        site={"help": "name or file of a site, which gives workers, walltime, memory and disk"},
        readers={"type": int, "nargs": "+", "help": "workers that read; one place for each number"},
        trainers={"type": int, "help": "ranks; by default a tenth of the readers, 32 at most"},
        worker_bandwidth={"default": "100 MB", "help": "bytes per second that a worker gets"},
        storage_bandwidth={"default": "10 GB", "help": "bytes per second that all get together"},
        disk_bandwidth={"default": "1 GB", "help": "bytes per second of the one machine's disk"},
        memory={"help": "of a worker; by default the site's, or 2 GiB"},
        disk={"help": "of a worker; by default the site's, or 10 GiB"},
        queue_wait={"default": "0.5 h", "help": "that each job is in the queue"},
        walltime={"help": "of a job; by default the site's, or 24 h"},
        start={"default": "30 s", "help": "from the start of a job to its first task"},
        checkpoint={"default": f"{CHECKPOINT:g} s", "help": "between two checkpoints of the ranks"},
        dispatch={"default": "2 ms", "help": "that the scheduler takes for a task (cluster.py)"},
        latency={"default": "100 us", "help": "of a message between two ranks"},
        epochs={"type": int, "default": 5, "help": "epochs"},
        batch_size={"type": int, "default": 1000, "help": "events of one rank in a step"},
        check={"action": "store_true", "help": "compare with runs of the whole command"},
        check_events={
            "type": int,
            "nargs": "+",
            "default": [400_000, 1_200_000],
            "help": "events of these runs",
        },
        workers={"type": int, "default": 1, "help": "workers of these runs, all of them ranks"},
    )


def machine(parsed: argparse.Namespace) -> Place:
    """A machine with as many cores as the published one, without a queue."""
    return Place(
        f"one machine, {PUBLISHED_CORES} cores",
        PUBLISHED_CORES,
        PUBLISHED_CORES,
        apart=False,
        storage_bandwidth=parse_bytes(parsed.disk_bandwidth),
        memory=parse_bytes(parsed.memory or "4 GiB"),
        disk=parse_bytes(parsed.disk or "100 GiB"),
        batch=parsed.batch_size,
        exchange=4e-5,  # through shared memory; docs/explanation/the-line.md
        dispatch=parse_timedelta(parsed.dispatch),
    )


def sites(parsed: argparse.Namespace) -> list[Place]:
    """The site of the options, once for each number of readers."""
    site = None if parsed.site is None else load_site(parsed.site)
    name, memory, disk, lifetime = "site", 2 * 2**30, 10 * 2**30, 0.9 * 24 * HOUR
    readers, trainers = parsed.readers or [100, 1000], parsed.trainers
    if site is not None:
        jobs = site.jobs("readers")
        name, memory = site.name, jobs.memory // jobs.processes
        disk = getattr(jobs, "disk", disk) // jobs.processes
        readers = parsed.readers or [site.options.readers.maximum]
        lifetimes = [site.lifetime(group) for group in ("readers", "trainers")]
        lifetime = min(each[0] if each else math.inf for each in lifetimes)
    if parsed.walltime is not None:
        lifetime = 0.9 * parse_timedelta(parsed.walltime)
    bandwidth = parse_bytes(parsed.worker_bandwidth)
    latency = parse_timedelta(parsed.latency)
    return [
        Place(
            f"{name}, {number} readers, {ranks} ranks",
            number,
            ranks,
            worker_bandwidth=bandwidth,
            storage_bandwidth=parse_bytes(parsed.storage_bandwidth),
            memory=memory if parsed.memory is None else parse_bytes(parsed.memory),
            disk=disk if parsed.disk is None else parse_bytes(parsed.disk),
            wait=parse_timedelta(parsed.queue_wait),
            start=parse_timedelta(parsed.start),
            lifetime=lifetime,
            batch=parsed.batch_size,
            # Every rank sends and receives all gradients, in a ring.
            exchange=2 * GRADIENTS / bandwidth + 2 * (ranks - 1) * latency,
            dispatch=parse_timedelta(parsed.dispatch),
            checkpoint=parse_timedelta(parsed.checkpoint),
        )
        for number in readers
        for ranks in [trainers or min(max(number // 10, 1), 32)]
    ]


def scaled(rates: Mapping[str, Mapping[str, float]], codec: str) -> Rates:
    """Rates of a codec, whose bytes are those of the published events, not of generated ones.

    Files of another codec than zlib are larger or smaller by as much as the generated ones are.
    """
    own = dict(rates[codec])
    zlib = rates.get("zlib", own)["stored"]
    return Rates(**{**own, "stored": STORED * own["stored"] / zlib})


def show(found: Mapping[str, Mapping[str, Mapping[str, Projection]]]) -> None:
    """Print the table, as docs/explanation/projection.md has it."""
    print("| size | codec | where | pass 1 | pass 2 | all epochs | blocks | whole run |")
    print("|---|---|---|---|---|---|---|---|")
    for size, (first, second) in PUBLISHED.items():
        print(f"| {size} | zlib | published | {first} | {second} | | | |")
        for codec, places in found.items():
            for place, sizes in places.items():
                each = sizes[size]
                phases = " | ".join(map(_phase, (each.specs, each.encode, each.train)))
                total = _time(each.total)
                print(f"| {size} | {codec} | {place} | {phases} | {each.kept} | {total} |")


def _phase(phase: Phase) -> str:
    redone = f", {_time(phase.redone)} redone" if 60 < phase.redone < math.inf else ""
    return f"{_time(phase.seconds)} ({phase.bound}{redone})"


def _time(seconds: float) -> str:
    if math.isinf(seconds):
        return "never"
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 2 * HOUR else f"{seconds / HOUR:,.0f} h"


def _rate(entry: tuple[str, float]) -> str:
    name, value = entry
    return f"{name} {value:.0f} bytes" if name in BYTES else f"{name} {1e6 * value:.2f} us"


def _hours(projection: Projection) -> dict[str, Any]:
    phases = {name: getattr(projection, name) for name in ("specs", "encode", "train")}
    hours = {name: phase.seconds / HOUR for name, phase in phases.items()}
    return {
        **_finite({**hours, "total": projection.total / HOUR}),
        "bounds": {name: phase.bound for name, phase in phases.items()},
        "blocks": projection.kept,
    }


def _finite(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Facts as JSON has them: null for what never ends, or has no limit."""
    return {
        name: None if value == math.inf else round(value, 6) if isinstance(value, float) else value
        for name, value in facts.items()
    }


def check(parsed: argparse.Namespace) -> None:
    """Compare predicted and measured processor seconds; the exit status is 1 if they differ.

    Rates are measured before and after every run, since the speed of shared machines drifts. The
    seconds that do not depend on the number of events are those of a run of few events.
    """
    training = common.published(
        epochs=parsed.epochs,
        batch_size=parsed.batch_size * parsed.workers,
        ranks=parsed.workers,
    )
    settings = {**training, "cluster": {"workers": parsed.workers}}
    codec = parsed.compression

    def run(events: int) -> dict[str, Stage]:
        paths = data.generate(parsed.data, events=events, compression=codec)
        config = common.write_config(Path(folder) / f"run-{events}.yaml", paths, **settings)
        return run_stages(config, Path(folder) / f"run-{events}")

    measured: dict[int, dict[str, Stage]] = {}
    with (
        tempfile.TemporaryDirectory(dir=parsed.data) as folder,
        Meter(parsed.data, parsed.events, codec, parsed.batch_size) as meter,
    ):
        tiny = run(TINY)
        for events in parsed.check_events:
            for _ in range(parsed.repeats):
                meter.turn()
            measured[events] = run(events)
        for _ in range(parsed.repeats):
            meter.turn()
        rates = Rates(**meter.rates())
    # Processor seconds add up over workers: they are those of one.
    place = Place("here", 1, 1, apart=False, batch=parsed.batch_size)
    table = {
        events: compare(project(events, rates, place, epochs=parsed.epochs), tiny, found)
        for events, found in measured.items()
    }
    print("| events | stage | predicted | measured | ratio | on the clock |")
    print("|---|---|---|---|---|---|")
    for events, stages in table.items():
        for stage, (predicted, cpu, wall) in stages.items():
            ratio = predicted / cpu
            print(
                f"| {events:,} | {stage} | {predicted:.2f} s | {cpu:.2f} s | {ratio:.2f} "
                f"| {wall:.2f} s |"
            )
    worst = max(
        (abs(math.log(predicted / cpu)), predicted, cpu)
        for stages in table.values()
        for predicted, cpu, _ in stages.values()
    )
    is_within = all(
        abs(predicted / cpu - 1) <= TOLERANCE
        for stages in table.values()
        for predicted, cpu, _ in stages.values()
    )
    common.close(
        "projection check",
        max(parsed.check_events),
        common.Comparison(worst[2], worst[1], worst[1] / worst[2]),
        reference="predicted processor seconds, of the stage that differs most",
        cores=parsed.workers,
        compression=codec,
        check={
            events: {stage: [round(each, 3) for each in three] for stage, three in stages.items()}
            for events, stages in table.items()
        },
        is_within=is_within,
    )
    if not is_within:
        sys.exit(f"a stage differs by more than {TOLERANCE:.0%}")


def compare(
    projection: Projection, tiny: Mapping[str, Stage], found: Mapping[str, Stage]
) -> dict[str, tuple[float, float, float]]:
    """By stage: predicted processor seconds, those that were measured, and seconds on the clock."""
    more = {name: getattr(projection, name).seconds for name in CHECKED}
    stages = {
        name: (tiny[name].cpu + more[name], found[name].cpu, found[name].wall) for name in CHECKED
    }
    fixed = sum(stage.cpu for stage in tiny.values())
    cpu, wall = (sum(stage[i] for stage in found.values()) for i in range(2))
    return {**stages, "whole command": (fixed + sum(more.values()), cpu, wall)}


if __name__ == "__main__":
    main()
