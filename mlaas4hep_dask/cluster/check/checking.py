"""Starts one worker of each group, asks what it finds, and ends it."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from mlaas4hep_dask.cluster.attach import connect
from mlaas4hep_dask.cluster.check.facts import (
    Facts,
    facts_of_worker,
    listen,
    reach,
    stop_listening,
)
from mlaas4hep_dask.cluster.check.input import Input, open_file, opened_line, unopened_line
from mlaas4hep_dask.cluster.check.lines import (
    Line,
    environment_lines,
    gpu_lines,
    memory_line,
    ports_line,
    scratch_line,
    start_line,
)
from mlaas4hep_dask.cluster.sites import Site, check_credentials, load_site
from mlaas4hep_dask.cluster.sites.credentials import credentials_for
from mlaas4hep_dask.errors import ClusterError, MLaaSError
from mlaas4hep_dask.places import GROUPS, LOCAL, SYSTEMS
from mlaas4hep_dask.waiting import ClusterHandle, processes, workers_of

if TYPE_CHECKING:
    from mlaas4hep_dask.config import Cluster


ANSWER = 120.0  # seconds in which a worker finds out what it is; XRootD takes some of them
SHORT = 1800.0  # seconds of walltime: long enough for one worker to wait for the other
PORT_TIMEOUT = 5.0  # seconds in which a port answers
WORDS = 3  # what was last said, of workers that do not start


@dataclass(frozen=True)
class Asked:
    """What is to be looked at.

    Parameters
    ----------
    cluster : Cluster
        Where.
    input : Input
        What is read there.
    timeout : float
        Seconds for workers to come.
    gpus : bool
        Whether trainers have to have GPUs, though the site does not say so.
    jobs : Path
        As of `connect`.
    """

    cluster: Cluster
    input: Input
    timeout: float
    jobs: Path
    gpus: bool = False


def check_cluster(asked: Asked, tell: Callable[[Line], None]) -> list[Line]:
    """What is found, told line by line as well; whatever is wrong is a red line."""
    lines: list[Line] = []

    def found(line: Line) -> None:
        lines.append(line)
        tell(line)

    try:
        if asked.cluster.address in SYSTEMS:
            site = load_site(asked.cluster.site, asked.cluster.address)
            found(credentials_line(site))
            if lines[0].colour == "red":  # nothing would be submitted
                return lines
        with one_of_each(asked) as options, _last_words() as log_lines:
            _look(asked, options, log_lines, found)
    except MLaaSError as error:
        found(start_line(str(error), []))
    return lines


@contextmanager
def one_of_each(asked: Asked) -> Iterator[Cluster]:
    """Section ``cluster`` for one worker of each group, of a batch system by a site of its own."""
    options = asked.cluster
    if options.address not in SYSTEMS:
        yield options.model_copy(update={"workers": 2}) if options.address == LOCAL else options
        return
    site = load_site(options.site, options.address)
    with tempfile.TemporaryDirectory(prefix="mlaas4hep-check-") as folder:
        file = Path(folder) / f"{site.name}.yaml"
        settings: dict[str, Any] = {
            "base": str(site.file.absolute()),
            "patience": asked.timeout,
            "max-resubmissions": 0,
        }
        settings |= {group: _one(site, group) for group in GROUPS}
        death = min(asked.timeout, site.jobs("readers").death_timeout)
        queue = {site.system: {"death-timeout": death}}
        file.write_text(yaml.safe_dump({"mlaas4hep": settings, "jobqueue": queue}))
        yield options.model_copy(update={"site": str(file), "workers": None})


def _one(site: Site, group: str) -> dict[str, Any]:
    """One worker of a group, in a job that need not be long: queues let short ones in sooner."""
    one: dict[str, Any] = {"minimum": 1, "maximum": 1} if group == "readers" else {}
    walltime = site.walltime(group)
    return one if walltime is None else {**one, "walltime": min(walltime, SHORT)}


def credentials_line(site: Site) -> Line:
    """Proxy and token of a user, as a site needs them."""
    try:
        warnings = check_credentials(site)
    except ClusterError as error:
        return Line("red", "", "credentials", str(error), "make a new one before you submit")
    if warnings:
        return Line("yellow", "", "credentials", "\n".join(warnings), "renew it before the run")
    passed = "; ".join(credential.title for credential in credentials_for(site)[0])
    return Line("green", "", "credentials", passed or "none is passed on")


def _look(
    asked: Asked, options: Cluster, log_lines: Sequence[str], tell: Callable[[Line], None]
) -> None:
    began = time.monotonic()
    site = load_site(options.site, options.address) if options.address in SYSTEMS else None
    try:
        with connect(options, ranks=1, jobs=asked.jobs) as client:
            cluster = ClusterHandle(client)
            if site is not None:
                cluster.wait_for_workers(
                    1, f"site {site.name}", seconds=asked.timeout, group="trainers"
                )
            workers = chosen_workers(cluster)
            for group, worker in workers.items():
                where = workers_of(client).name(worker)
                seconds = f"after {time.monotonic() - began:.0f} s"
                tell(Line("green", group, "starts", f"{where}, {seconds}"))
            for group, worker in workers.items():
                gpus = asked.gpus and group != "readers"
                if site is not None and group in GROUPS:
                    gpus = gpus or site.group(group).gpus > 0
                _look_at_one(asked, cluster, group, worker, tell, gpus=gpus)
            _look_at_ports(cluster, workers, tell)
    except MLaaSError as error:
        tell(start_line(str(error), log_lines[-WORDS:]))


def chosen_workers(cluster: ClusterHandle) -> dict[str, str]:
    """By group: a worker of it, another one for each where there are two; else by ``workers``."""
    readers = list(cluster.choose(1, "readers"))
    others = [worker for worker in cluster.choose(2, "trainers") if worker not in readers]
    if readers and others:
        return {"readers": readers[0], "trainers": others[0]}
    alone = readers or list(cluster.choose(1, "trainers"))
    groups = [g for g in GROUPS if cluster.alive(g)]
    name = "workers" if len(groups) == len(GROUPS) else groups[0]
    return {name: alone[0]}


def _look_at_one(
    asked: Asked,
    cluster: ClusterHandle,
    group: str,
    worker: str,
    tell: Callable[[Line], None],
    *,
    gpus: bool,
) -> None:
    info = cluster.alive()[worker]
    here = {name: v for need in asked.input.needs for name, v in need.packages.items()}
    try:
        facts: Facts = _on_worker(
            cluster, worker, facts_of_worker, asked.input.needs, info["local_directory"], gpus=gpus
        )
    except Exception as error:  # of a worker that cannot even take this
        name = workers_of(cluster.client).name(worker)
        tell(start_line(f"{name}: {error}", []))
        return
    for line in environment_lines(group, facts, here):
        tell(line)
    tell(memory_line(group, info["metrics"].get("memory", 0), info["memory_limit"] or 0))
    for scratch in facts.scratch:
        tell(scratch_line(group, scratch))
    if facts.gpus is not None:
        for line in gpu_lines(group, facts.gpus):
            tell(line)
    if group == "trainers":  # readers alone read
        return
    if asked.input.file is None:
        advice = "give a dataset.yaml: its first file is opened on a worker"
        tell(Line("yellow", group, "input", "no file was opened", advice))
        return
    try:
        num_entries, seconds = _on_worker(
            cluster, worker, open_file, asked.input.file, asked.input.access
        )
    except Exception as error:  # whatever it is, the file is not there for this worker
        tell(unopened_line(group, error))
    else:
        tell(opened_line(group, asked.input.file, num_entries, seconds))


def _on_worker(
    cluster: ClusterHandle, worker: str, function: Callable[..., Any], *arguments: Any, **more: Any
) -> Any:
    """What a function returns that runs as a task on one worker.

    Raises
    ------
    ClusterError
        When the worker leaves, or has not answered in time.
    Exception
        What the function raises.
    """
    future = cluster.submit(function, *arguments, workers=[worker], pure=False, priority=20, **more)
    on = processes({worker: cluster.alive()[worker]})
    try:
        return cluster.gather([future], "check", on=on, seconds=ANSWER)[0]
    finally:
        cluster.let_go([future])


def _look_at_ports(
    cluster: ClusterHandle, workers: Mapping[str, str], tell: Callable[[Line], None]
) -> None:
    """Whether workers reach each other at the ports of Dask, and at free ones as ranks do."""
    if len(workers) < len(GROUPS):
        advice = "ports between workers are tried with two of them: start one more"
        tell(Line("yellow", next(iter(workers)), "ports", "there is only one worker", advice))
        return
    for group, other in zip(GROUPS, reversed(GROUPS), strict=True):
        there, here = workers[other], workers[group]
        try:
            host, port = _host_of(there)
            free = _on_worker(cluster, there, listen, host)
            try:
                failures = {
                    f"{what} {host}:{number}": _on_worker(
                        cluster, here, reach, host, number, PORT_TIMEOUT
                    )
                    for what, number in (("Dask's port", port), ("a rank's port", free))
                }
            finally:
                _on_worker(cluster, there, stop_listening, free)
        except (MLaaSError, OSError) as error:
            failures = {there: str(error)}
        tell(ports_line(group, other, failures))


def _host_of(address: str) -> tuple[str, int]:
    host, _, port = address.partition("://")[2].rpartition(":")
    return host.strip("[]"), int(port)


@contextmanager
def _last_words() -> Iterator[list[str]]:
    """What is warned of while the context lives, for the line of workers that do not start."""
    log_lines: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            log_lines.append(record.getMessage())

    listener = Listener(logging.WARNING)
    logger = logging.getLogger("mlaas4hep_dask.cluster")
    logger.addHandler(listener)
    try:
        yield log_lines
    finally:
        logger.removeHandler(listener)
