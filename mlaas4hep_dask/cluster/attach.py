"""Connects to a Dask cluster: one on this machine, or a running scheduler."""

from __future__ import annotations

import logging
import multiprocessing
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import forkserver
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    from distributed import Client

    from mlaas4hep_dask.config import Cluster

from mlaas4hep_dask.errors import ClusterError

CONNECT_TIMEOUT = 20  # seconds
WORKERS_TIMEOUT = 60  # seconds until a scheduler has its first worker

SETTINGS: dict[str, Any] = {
    "distributed.worker.multiprocessing-method": "forkserver",
    # MALLOC_TRIM_THRESHOLD_, which Dask sets for its workers, makes glibc give every basket's
    # buffer back to the system and fault it in again: reading and encoding take up to half as
    # long again.
    "distributed.nanny.pre-spawn-environ": {},
    "distributed.nanny.environ": {"OMP_NUM_THREADS": 1, "OPENBLAS_NUM_THREADS": 1},
    "distributed.worker.profile.enabled": False,  # costs 4 to 8 % of reading
    # Looks at clocks and memory, 50 and 10 times a second by default, take 3 % of two cores.
    "distributed.admin.tick.interval": "500ms",
    "distributed.admin.system-monitor.interval": "1s",
    "distributed.worker.memory.monitor-interval": "250ms",
    "distributed.scheduler.allowed-failures": 3,
    # A worker that imports torch, to be a rank, gets no partition to read meanwhile.
    "distributed.scheduler.default-task-durations": {"import_rank": "3s"},
}

# What workers import before they can measure and encode. Not torch: the ranks among them import
# it while the others read.
PRELOADED = (
    "mlaas4hep_dask.cluster.forking",
    "distributed.nanny",
    "mlaas4hep_dask.dataset.preload",
    "mlaas4hep_dask.cluster.forked",
)


def warm_up(*modules: str) -> None:
    """Begin, in another process, to import what the workers of a local cluster need.

    They are forked from that process, so that the 2 s of imports are spent once and not by each
    of them, and while this process does something else.

    Parameters
    ----------
    *modules : str
        What to import beside that which measures and encodes.
    """
    multiprocessing.set_forkserver_preload([*PRELOADED, *modules])
    forkserver.ensure_running()


def cool_down() -> None:
    """End the process that `warm_up` began, and all workers forked from it.

    For the very end of a command: the process would keep the command's output open for a while.
    """
    for child in psutil.Process().children():
        with suppress(psutil.Error):
            if "multiprocessing.forkserver" in " ".join(child.cmdline()):
                child.kill()


@contextmanager
def connect(options: Cluster, *, ranks: int) -> Iterator[Client]:
    """A client of the cluster; a local cluster ends with the context.

    Parameters
    ----------
    options : Cluster
        Section ``cluster`` of the configuration.
    ranks : int
        Ranks that will train: a cluster has at least as many workers.

    Raises
    ------
    ClusterError
        When the scheduler does not answer, or the local cluster cannot be started.
    """
    if options.address == "local":
        with _local(options, ranks) as client:
            yield client
        return
    from distributed import Client

    try:
        client = Client(options.address, timeout=CONNECT_TIMEOUT)
    except (OSError, TimeoutError, ValueError) as error:
        raise ClusterError(
            f"no Dask scheduler answers at {options.address} ({error})", address=options.address
        ) from error
    with client:
        try:
            client.wait_for_workers(1, timeout=WORKERS_TIMEOUT)
        except TimeoutError as error:
            raise ClusterError(
                f"the scheduler at {options.address} has had no worker for {WORKERS_TIMEOUT} s",
                address=options.address,
            ) from error
        yield client


@contextmanager
def _local(options: Cluster, ranks: int) -> Iterator[Client]:
    import dask
    from distributed import Client, LocalCluster

    warm_up()
    cores = len(os.sched_getaffinity(0))
    with dask.config.set(SETTINGS):  # as long as the cluster lives, for workers started again
        try:
            cluster = LocalCluster(
                n_workers=options.workers or max(cores, ranks),
                threads_per_worker=1,
                processes=True,
                host="127.0.0.1",
                dashboard_address="127.0.0.1:0",
                memory_limit="auto" if options.memory_limit is None else options.memory_limit,
                silence_logs=logging.CRITICAL,  # errors reach the client, which reports them once
            )
        except (OSError, RuntimeError, TimeoutError) as error:
            raise ClusterError(
                f"the local cluster does not start ({error})", address="local"
            ) from error
        with cluster, Client(cluster) as client:
            yield client
