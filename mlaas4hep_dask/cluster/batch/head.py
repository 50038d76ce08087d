"""Starts the scheduler of a batch cluster on this machine, with certificates of its own."""

from __future__ import annotations

import errno
import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlaas4hep_dask.cluster.batch import records
from mlaas4hep_dask.cluster.batch.own_address import address_for_workers
from mlaas4hep_dask.cluster.batch.records import Driver
from mlaas4hep_dask.cluster.batch.scheduler import GOODBYE
from mlaas4hep_dask.cluster.sites import Site
from mlaas4hep_dask.errors import ClusterError, MissingExtraError

if TYPE_CHECKING:
    from distributed.security import Security

logger = logging.getLogger(__name__)

START_TIMEOUT = 60.0  # seconds; a login node with a slow file system imports Dask for some of them
CLOSE_TIMEOUT = 10.0
DASHBOARD = "127.0.0.1:0"  # it has no password: nobody on another machine may reach it


@dataclass(frozen=True)
class Head:
    """A scheduler that runs.

    Attributes
    ----------
    address : str
        At which workers and clients reach it.
    dashboard : int or None
        The port of its dashboard, on this machine's loopback; None without bokeh.
    security : Security or None
        Of Dask, with certificates in files.
    """

    address: str
    dashboard: int | None
    security: Security | None


def certificates(folder: Path) -> Security:
    """Security of Dask with a new key and certificate, in files that only this user can read.

    Scheduler, workers and client all show the certificate, and take no other.

    Parameters
    ----------
    folder : Path
        Where the files are written.

    Raises
    ------
    MissingExtraError
        When cryptography is not installed.
    """
    from distributed.security import Security

    try:
        security = Security.temporary()
    except ImportError as error:
        raise MissingExtraError.of("cluster", module="cryptography") from error
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    files = {}
    for name, text in (("cert.pem", security.tls_ca_file), ("key.pem", security.tls_worker_key)):
        path = files[name] = str(folder / name)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
    roles = ("client", "scheduler", "worker")
    return Security(
        require_encryption=True,
        tls_ca_file=files["cert.pem"],
        **{f"tls_{role}_cert": files["cert.pem"] for role in roles},
        **{f"tls_{role}_key": files["key.pem"] for role in roles},
    )


@contextmanager
def running_head(
    site: Site,
    security: Security | None,
    log: Path,
    driver: Driver,
    folder: Path,
    *,
    close_timeout: float = CLOSE_TIMEOUT,
) -> Iterator[Head]:
    """A scheduler for the workers of a site, until the context ends, or this process.

    Parameters
    ----------
    site : Site
        Says where it listens.
    security : Security, optional
        From `certificates`.
    log : Path
        A file for what it says.
    driver : Driver
        This process. When it is gone without a goodbye, its jobs and keys are ended from there.
    folder : Path
        Of the cluster's records.
    close_timeout : float
        Seconds in which it ends after a goodbye.

    Raises
    ------
    ClusterError
        When it does not start, as when all ports that it may take are taken.
    """
    options = {
        "security": _options_of(security),
        "settings": site.settings,
        "scheduler": _place_of(site),
        "ports": _ports_of(site),
        "driver": asdict(driver),
        "folder": str(folder),
    }
    command = [sys.executable, "-m", "mlaas4hep_dask.cluster.batch.scheduler"]
    began = time.monotonic()
    with log.open("ab") as log_file:
        # A session of its own: a terminal's Ctrl-C shall not reach it, the client ends it.
        process = subprocess.Popen(  # noqa: S603  # this package
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log_file,
            text=True,
            start_new_session=True,
        )
    assert process.stdin is not None
    assert process.stdout is not None
    watch = threading.Timer(START_TIMEOUT, process.kill)
    watch.start()
    try:
        with suppress(BrokenPipeError):
            process.stdin.write(json.dumps(options) + "\n")
            process.stdin.flush()
        line = process.stdout.readline()
    finally:
        watch.cancel()
    try:
        if not line:
            process.kill()
            _require_free_port(site)
            words = log.read_text(errors="replace").strip().splitlines()[-1:] or ["no word"]
            waited = f"{time.monotonic() - began:.0f} s"
            raise ClusterError(
                f"the scheduler did not start on this machine in {waited} ({words[0]}); see {log}"
            )
        message = json.loads(line)
        yield Head(message["address"], message["dashboard"], security)
    finally:
        _end(process, folder, close_timeout)


def _end(process: subprocess.Popen[str], folder: Path, close_timeout: float) -> None:
    """End a scheduler; where jobs may be left in the queue, it stays until it has ended them."""
    assert process.stdin is not None
    assert process.stdout is not None
    recorded = records.read(folder)
    is_clean = not recorded.left and not recorded.unanswered
    with suppress(OSError):  # it has ended
        if is_clean:
            process.stdin.write(f"{GOODBYE}\n")
        process.stdin.close()
    process.stdout.close()
    if not is_clean:  # it needs longer than this process has
        threading.Thread(target=process.wait, daemon=True).start()
        return
    try:
        process.wait(close_timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _options_of(security: Security | None) -> dict[str, Any] | None:
    if security is None:
        return None
    options = {
        f"tls_{role}_{kind}": getattr(security, f"tls_{role}_{kind}")
        for role in ("client", "scheduler", "worker")
        for kind in ("cert", "key")
    }
    return {**options, "tls_ca_file": security.tls_ca_file, "require_encryption": True}


def _place_of(site: Site) -> dict[str, Any]:
    """Options of Dask's scheduler: where it listens, and what it says of itself."""
    jobs = site.jobs("readers")
    options: dict[str, Any] = {"interface": jobs.interface, "dashboard_address": DASHBOARD}
    options |= {key: value for key, value in jobs.scheduler_options.items() if key != "port"}
    if options.get("host"):  # which says more than an interface
        options["interface"] = None
    elif not options.get("interface") and not options.get("contact_address"):
        options["host"] = address_for_workers()
    return options


def _require_free_port(site: Site) -> None:
    """Raise a ClusterError when all ports that a site leaves to the scheduler are taken here."""
    ports = _ports_of(site)
    if 0 not in ports and all(map(_is_taken, ports)):
        which = f"port {ports[0]}" if len(ports) == 1 else f"ports {ports[0]} to {ports[-1]}"
        raise ClusterError(
            f"no scheduler can listen on this machine: site {site.name} leaves it {which} "
            "(scheduler-ports), and other processes have that; end the other run, or use another "
            "machine",
            site=site.name,
        )


def _is_taken(port: int) -> bool:
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind(("", port))
        except OSError as error:
            return error.errno == errno.EADDRINUSE
    return False


def _ports_of(site: Site) -> list[int]:
    """The ports that the scheduler may take, in the order in which it tries them; 0 is any."""
    port = site.jobs("readers").scheduler_options.get("port")
    first, _, last = str(port or site.options.scheduler_ports or 0).partition(":")
    return list(range(int(first), int(last or first) + 1))
