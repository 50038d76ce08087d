"""Starts a cluster on this machine."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import spawn
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlaas4hep_dask.cluster.attach import NO_LOGS, TORCH_VARIABLE, cool_down, warm_up
from mlaas4hep_dask.cluster.reach import BOUNDS
from mlaas4hep_dask.cluster.scratch import scratch_folder
from mlaas4hep_dask.cluster.settings import SETTINGS
from mlaas4hep_dask.command import signals_wait, whole_stack
from mlaas4hep_dask.errors import ClusterError

if TYPE_CHECKING:
    from distributed import Client, LocalCluster

    from mlaas4hep_dask.config import Cluster

logger = logging.getLogger(__name__)

CLOSE_TIMEOUT = 20.0  # seconds in which workers have to end; less than a command has to clean up
WORKERS = "Dask Worker"  # how Dask calls their processes
LARGEST_WEIGHT = 0.5  # of its memory limit that an idle worker may take; Dask pauses it at 0.8
FORKED = {
    "distributed.worker.multiprocessing-method": "forkserver",  # see attach.warm_up
    # Dask looks so long after a death whether the worker is there, and if it happens to be starting
    # again after a second one, closes its nanny for good.
    "distributed.deploy.lost-worker-timeout": "1000h",
}
TORCH_FOLDER = f"distributed.nanny.environ.{TORCH_VARIABLE}"
_prepared = spawn.get_preparation_data
_without: list[object] = []  # clusters that live


@contextmanager
def start(options: Cluster, ranks: int, jobs: Path | None = None) -> Iterator[Client]:
    """A client of a new cluster, which ends with the context; as `attach.connect`."""
    del jobs  # there are none
    import dask
    from distributed import Client, LocalCluster

    from mlaas4hep_dask.cluster.page import add_page
    from mlaas4hep_dask.waiting import ClusterHandle, workers_of

    warm_up()  # unless a command has begun to
    number = options.workers or max(len(os.sched_getaffinity(0)), ranks)
    with whole_stack() as stack:
        parent = dask.config.get("temporary-directory", None)
        scratch = stack.enter_context(scratch_folder(parent))
        # As long as the cluster lives, for workers started again.
        settings = {**SETTINGS, **FORKED, "temporary-directory": str(scratch)}
        stack.enter_context(dask.config.set(settings))
        # torch makes a folder for a compiler that nobody here uses, and would leave it behind.
        stack.enter_context(dask.config.set({TORCH_FOLDER: str(scratch / "torch")}))
        stack.enter_context(_without_main())
        with signals_wait():  # Dask leaves a cluster that is half started with tracebacks, at exit
            try:
                cluster = LocalCluster(
                    n_workers=number,
                    threads_per_worker=1,
                    processes=True,
                    host="127.0.0.1",
                    dashboard_address="127.0.0.1:0",
                    memory_limit=("auto" if options.memory_limit is None else options.memory_limit),
                    silence_logs=NO_LOGS,
                )
            except (OSError, RuntimeError, TimeoutError) as error:
                raise ClusterError(
                    f"the local cluster does not start ({error})", address="local"
                ) from error
            except BaseException:  # nobody else would end its workers
                cool_down()
                raise
            stack.callback(_close, cluster)
            client = stack.enter_context(Client(cluster))
        workers_of(client).processes.follow(cluster)
        add_page(client)
        ClusterHandle(client).wait_for_workers(number, "the local cluster", seconds=BOUNDS.worker)
        _require_room(client)
        yield client


@contextmanager
def _without_main() -> Iterator[None]:
    """Have workers that are started within not run the script of this process again.

    multiprocessing imports it in every process that it begins. A script that connects without
    asking for ``__name__`` would so connect in its workers, and one from standard input has no
    file: no worker would ever come. Functions of a script are sent as they are, by cloudpickle.
    """
    cluster = object()
    _without.append(cluster)
    spawn.get_preparation_data = _prepared_without_main
    try:
        yield
    finally:
        _without.remove(cluster)
        if not _without:  # they close in any order
            spawn.get_preparation_data = _prepared


def _prepared_without_main(name: str) -> dict[str, Any]:
    data = _prepared(name)
    if name.startswith(WORKERS):
        data.pop("init_main_from_path", None)
        data.pop("init_main_from_name", None)
    return data


def _close(cluster: LocalCluster) -> None:
    """Close a cluster; what does not end in time, as on a busy machine, is killed."""
    nannies = list(cluster.workers.values())
    try:
        cluster.close(timeout=CLOSE_TIMEOUT)
    except (OSError, RuntimeError, TimeoutError) as error:
        logger.info("workers of the local cluster did not end in time (%r)", error)
        cluster.shutdown_on_close = False  # else Dask would wait for them again, at exit
        for nanny in nannies:
            nanny.auto_restart = False
            if nanny.pid:
                with suppress(ProcessLookupError):
                    os.kill(nanny.pid, signal.SIGKILL)


def _require_room(client: Client) -> None:
    """Raise when workers have hardly any memory left before they have read anything."""
    from mlaas4hep_dask.waiting import ClusterHandle, size

    for worker in ClusterHandle(client).alive().values():
        weight, limit = worker["metrics"].get("memory", 0), worker["memory_limit"] or 0
        if limit and weight > LARGEST_WEIGHT * limit:
            raise ClusterError(
                f"cluster.memory_limit is {size(limit)}, of which a worker takes {size(weight)} "
                f"before it has read anything: give at least {size(weight / LARGEST_WEIGHT)}, and "
                "more for large partitions; a rank takes twice as much for torch",
                memory_limit=limit,
            )
