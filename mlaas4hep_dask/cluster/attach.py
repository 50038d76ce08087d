"""Connects to a Dask cluster: one that is started for it, or a running scheduler."""

from __future__ import annotations

import importlib
import logging
import multiprocessing
import os
import signal
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from multiprocessing import forkserver, resource_tracker
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from distributed import Client

    from mlaas4hep_dask.config import Cluster

from mlaas4hep_dask.cluster.reach import (
    BOUNDS,
    Bounds,
    require_same_versions,
    require_scheduler,
)
from mlaas4hep_dask.cluster.scratch import socket_folder
from mlaas4hep_dask.errors import ClusterError
from mlaas4hep_dask.places import LOCAL, PLACES, SYSTEMS

LONG_PATH = 70  # characters; a socket's own name comes after them, and 107 are allowed
CLOSE_TIMEOUT = 5  # seconds in which a scheduler that was there before says goodbye
NO_LOGS = logging.CRITICAL + 1  # of Dask: errors reach the client, which reports them once
SILENCED = ("distributed", "tornado", "bokeh", "asyncio")  # with all loggers below them

USUAL_RANKS = 2  # of a configuration that names no other number
# What workers import before they can measure and encode.
PRELOADED = (
    "mlaas4hep_dask.cluster.forking",
    "distributed.nanny",
    "pandas",  # if it is there: of which each worker of Dask tells the version
    "mlaas4hep_dask.dataset.preload",
)
TORCH = "torch._dynamo"  # with what torch's optimisers import, which takes longer than torch
TORCH_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"
READY = "mlaas4hep_dask.cluster.forked"


def warm_up(*modules: str, trains: bool = False) -> None:
    """Begin, in another process, to import what the workers of a local cluster need.

    They are forked from that process, so that the seconds of imports are spent once and not by
    each of them, and while this process does something else. A process has one of that kind: later
    calls change nothing.

    Parameters
    ----------
    *modules : str
        What to import beside that which measures and encodes.
    trains : bool
        Import torch too, as each worker will be a rank. Otherwise those among them import it,
        while the others read.
    """
    torch = (TORCH,) if trains else ()
    multiprocessing.set_forkserver_preload([*PRELOADED, *modules, *torch, READY])
    # A terminal sends Ctrl-C to that process too, which would print where it was. It hears no
    # interrupt until it ignores them. That the terminal was closed concerns this process alone.
    earlier = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        folder = socket_folder()
        resource_tracker.ensure_running()  # which would let interrupts through again
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        with _torch_folder(folder / "torch"):
            forkserver.ensure_running()
    except OSError as error:
        parent = tempfile.gettempdir()
        too_long = "has too long a path for sockets" if len(parent) > LONG_PATH else f"({error})"
        raise ClusterError(
            f"the temporary directory {parent} {too_long}; set TMPDIR to another one",
            folder=parent,
        ) from error
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, earlier)


@contextmanager
def _torch_folder(folder: Path) -> Iterator[None]:
    """Have what is started within keep torch's folder for a compiler where it is removed at exit.

    torch makes it when it is imported, though nobody here uses it.
    """
    if TORCH_VARIABLE in os.environ:
        yield
        return
    os.environ[TORCH_VARIABLE] = str(folder)
    try:
        yield
    finally:
        del os.environ[TORCH_VARIABLE]


def silence() -> None:
    """Let Dask and what it uses log nothing, for a command that reports errors itself, once.

    Dask gives some loggers levels of their own, also of other libraries, as tornado.application.
    """
    importlib.import_module("distributed")
    for name in {*SILENCED, *logging.root.manager.loggerDict}:
        if name.partition(".")[0] in SILENCED:
            logging.getLogger(name).setLevel(NO_LOGS)


def cool_down() -> None:
    """End the process that `warm_up` began, and all workers forked from it.

    For the very end of a command: the process would keep the command's output open for a while.
    """
    for child in psutil.Process().children():
        with suppress(psutil.Error):
            if "multiprocessing.forkserver" in " ".join(child.cmdline()):
                for process in [child, *child.children(recursive=True)]:
                    with suppress(psutil.Error):
                        process.kill()


@contextmanager
def connect(
    options: Cluster, *, ranks: int, jobs: Path | None = None, bounds: Bounds = BOUNDS
) -> Iterator[Client]:
    """A client of the cluster; one that is started here ends with the context.

    Parameters
    ----------
    options : Cluster
        Section ``cluster`` of the configuration.
    ranks : int
        Ranks that will train: a cluster has at least as many workers.
    jobs : Path, optional
        Folder of what the clusters of a batch system write: scripts, logs, records.
    bounds : Bounds
        In which a scheduler has to be reached.

    Raises
    ------
    ClusterError
        When the scheduler does not answer, or the cluster cannot be started.
    """
    if options.address in PLACES:
        name = "batch" if options.address in SYSTEMS else options.address
        place = importlib.import_module(f"mlaas4hep_dask.cluster.places.{name}")
        with place.start(options, ranks, jobs) as client, _newcomers(client, options.address):
            yield client
        return
    from distributed import Client

    from mlaas4hep_dask.cluster.page import add_page
    from mlaas4hep_dask.waiting import ClusterHandle

    require_scheduler(options.address, bounds)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of versions, which are looked at below
            client = Client(options.address, timeout=bounds.listen)
    except (OSError, TimeoutError, ValueError) as error:
        raise ClusterError(
            f"no Dask scheduler answers at {options.address} ({error})", address=options.address
        ) from error
    try:
        add_page(client)
        where = f"the scheduler at {options.address}"
        ClusterHandle(client).wait_for_workers(1, where, seconds=bounds.worker)
        require_same_versions(client)
        with _newcomers(client, options.address):
            yield client
    finally:
        with suppress(TimeoutError, OSError):  # a scheduler that has stopped says no goodbye
            client.close(timeout=CLOSE_TIMEOUT)


def _newcomers(client: Client, address: str) -> AbstractContextManager[None]:
    """Look at workers that join later, unless this machine's Python starts them all."""
    if address == LOCAL:
        return nullcontext()
    from mlaas4hep_dask.cluster.newcomers import same_versions_of_newcomers

    return same_versions_of_newcomers(client)
