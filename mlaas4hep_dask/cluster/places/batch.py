"""Starts a cluster whose workers are jobs of a batch system."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlaas4hep_dask.cluster.batch.head import Head, certificates, running_head
from mlaas4hep_dask.cluster.batch.leftovers import end_earlier
from mlaas4hep_dask.cluster.batch.limits import Limits, Size
from mlaas4hep_dask.cluster.batch.records import DRIVER, Driver
from mlaas4hep_dask.cluster.batch.supervisor import Supervisor, Workers
from mlaas4hep_dask.cluster.reach import require_same_versions
from mlaas4hep_dask.cluster.secrets import remove_secrets
from mlaas4hep_dask.cluster.sites import (
    Carried,
    Site,
    carried,
    check_credentials,
    job_script,
    load_site,
    make_log_folders,
)
from mlaas4hep_dask.cluster.systems.queue import require_commands
from mlaas4hep_dask.cluster.systems.registry import QUEUES
from mlaas4hep_dask.command import signals_wait, whole_stack
from mlaas4hep_dask.errors import ClusterError, writing
from mlaas4hep_dask.journal import birth_of
from mlaas4hep_dask.places import VARIABLE

if TYPE_CHECKING:
    from distributed import Client

    from mlaas4hep_dask.config import Cluster

logger = logging.getLogger(__name__)

LONGER = 1.1  # times the supervisor's patience: it has the better words, and says them first
SURVEY_TIMEOUT = 30.0  # seconds; a scheduler that is busy takes some of them


def site_of(options: Cluster) -> Site:
    """The site of section ``cluster``, with what the section says of workers.

    Raises
    ------
    ConfigError, ClusterError
        See `load_site`.
    """
    values: dict[str, Any] = {}
    if options.workers is not None:
        values["mlaas4hep"] = {"readers": {"minimum": 1, "maximum": options.workers}}
    if options.memory_limit is not None:
        values["jobqueue"] = {options.address: {"memory": options.memory_limit}}
    return load_site(options.site, options.address, values)


@contextmanager
def start(options: Cluster, ranks: int, jobs: Path | None) -> Iterator[Client]:
    """A client of a new cluster, which ends with the context; as `attach.connect`.

    Parameters
    ----------
    options : Cluster
        Section ``cluster`` of the configuration, with a batch system as its address.
    ranks : int
        Workers of the group ``trainers``.
    jobs : Path or None
        The folder in which every cluster has a folder, for scripts, logs, certificates and
        records. None is ``mlaas4hep.jobs`` in the current folder.
    """
    from distributed import Client

    from mlaas4hep_dask.cluster.page import Teller, add_page
    from mlaas4hep_dask.waiting import ClusterHandle, workers_of

    site = site_of(options)
    queue = QUEUES[site.system](site.queue_options)
    require_commands(queue)
    for warning in check_credentials(site):
        logger.warning("%s", warning)
    if num := site.gpus("readers"):
        text = "site %s asks for GPUs for its readers (%d for each), which leave them idle"
        logger.warning(text, site.name, num)
    run = secrets.token_hex(3)
    clusters = (jobs or Path("mlaas4hep.jobs")).absolute()
    end_earlier(clusters)
    folder = clusters / f"{time.strftime('%Y%m%d-%H%M%S')}-{run}"
    with writing(folder):
        (folder / "logs").mkdir(parents=True)
    make_log_folders(site)
    with whole_stack() as stack:
        security = None
        keys = _keys_folder(site, folder, run)
        driver = _driver(site, run, keys)
        with writing(folder / DRIVER):
            driver.write(folder)
        stack.callback(remove_secrets, keys)
        if site.options.tls:
            security = certificates(keys)
        copies = stack.enter_context(carried(site, keys))
        log = folder / "logs" / "scheduler.log"
        head = stack.enter_context(running_head(site, security, log, driver, folder))
        with signals_wait():
            client = stack.enter_context(
                Client(head.address, security=security, timeout=SURVEY_TIMEOUT)
            )
        with writing(folder / DRIVER):
            replace(driver, scheduler=head.address, dashboard=head.dashboard).write(folder)
        add_page(client)
        teller = stack.enter_context(Teller(client))
        limits = limits_of(site, ranks)
        supervisor = Supervisor(
            queue,
            partial(_script, site, head, folder / "logs", copies),
            copies.before(partial(workers_now, client, processes=limits.processes)),
            limits=limits,
            folder=folder,
            prefix=f"{run}-",
            interval=site.options.poll_interval,
            tell=teller.tell,
        )
        workers = workers_of(client)
        workers.patience = replace(workers.patience, no_worker=LONGER * limits.patience)
        workers.trouble = lambda: supervisor.failure
        workers.are_jobs_with_files = site.options.shared_files
        workers.scratch = scratch_of(site)
        stack.enter_context(supervisor)
        minimum = limits.sizes["readers"].minimum
        ClusterHandle(client).wait_for_workers(
            minimum, f"site {site.name}", seconds=workers.patience.no_worker, group="readers"
        )
        require_same_versions(client)
        yield client


def limits_of(site: Site, ranks: int) -> Limits:
    """The bounds of a site for its supervisor; without ranks there are no trainers."""
    readers = site.options.readers
    sizes = {"readers": Size(readers.minimum, readers.maximum)}
    if ranks:
        sizes["trainers"] = Size(ranks, ranks)
    lives = {group: site.lifetime(group) for group in sizes}
    return Limits(
        sizes=sizes,
        processes={group: site.jobs(group).processes for group in sizes},
        lifetimes={group: life[0] - life[1] for group, life in lives.items() if life is not None},
        patience=site.options.patience,
        connects={group: site.jobs(group).death_timeout for group in sizes},
        max_losses=site.options.max_resubmissions,
    )


def _script(site: Site, head: Head, logs: Path, copies: Carried, group: str, worker: str) -> Any:
    return job_script(
        site,
        group,
        scheduler_address=head.address,
        name=worker,
        security=head.security,
        logs=logs,
        credentials=copies.files,
    )


def workers_now(
    client: Client, *, processes: Mapping[str, int], seconds: float = SURVEY_TIMEOUT
) -> Workers | None:
    """What Dask knows of the workers of each job; None when its scheduler does not answer in time.

    Raises
    ------
    ClusterError
        When the scheduler has ended.
    Exception
        What is at fault in the survey itself: it is no silence.
    """
    from mlaas4hep_dask.cluster.batch.survey import by_job, survey
    from mlaas4hep_dask.dataset.progress import PROGRESS

    async def asked() -> Any:
        if client.scheduler is None:
            raise ConnectionError("the client is closed")
        return await client.run_on_scheduler(survey, topic=PROGRESS)

    try:
        answer: Mapping[str, Any] = client.sync(asked, callback_timeout=seconds)
    except (OSError, RuntimeError, TimeoutError) as error:
        is_running = client.status == "running"
        if is_running and isinstance(error, RuntimeError):
            raise
        if is_running:
            logger.info("the scheduler does not answer: %r", error)
            return None
        raise ClusterError("the scheduler has ended") from error
    names = by_job(answer["names"], processes)
    idle = by_job(answer["idle"], processes)
    idle_jobs = frozenset(job for job, number in names.items() if idle[job] == number)
    return Workers(names, answer["work"], answer["backlog"], idle_jobs)


def _keys_folder(site: Site, folder: Path, run: str) -> Path:
    """Where the secrets of a run are: in a folder that all nodes see, if there is one."""
    shared = site.jobs("readers").shared_temp_directory
    if shared is None:
        return folder / "tls"
    return _expanded(shared) / f"mlaas4hep_dask-tls-{run}"


def scratch_of(site: Site) -> Path | None:
    """The folder for much data that a site names; None, with a warning, where a variable lacks."""
    named = site.options.shared_scratch
    if named is None:
        return None
    folder = _expanded(named)
    if not folder.is_absolute():
        text = "site %s has shared-scratch %s, which is no absolute path here: it is not used"
        logger.warning(text, site.name, named)
        return None
    return folder


def _expanded(path: str) -> Path:
    return Path(os.path.expandvars(os.path.expanduser(path)))  # noqa: PTH111  # ~ and $VARIABLES


def _driver(site: Site, run: str, keys: Path) -> Driver:
    """What runs a cluster: the process in which this is called."""
    return Driver(
        host=socket.gethostname(),
        pid=os.getpid(),
        birth=birth_of(os.getpid()),
        system=site.system,
        site=site.name,
        options=site.queue_options,
        run=run,
        keys=str(keys),
        job=QUEUES[site.system].own_job(),
        head=os.environ.get(VARIABLE, ""),
    )
