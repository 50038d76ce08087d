"""Whether a Dask scheduler answers at an address, and whether its workers run what we run."""

from __future__ import annotations

import asyncio
import logging
import os
import pkgutil
import socket
import ssl
import sys
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlaas4hep_dask import __version__
from mlaas4hep_dask.errors import ClusterError

if TYPE_CHECKING:
    from distributed import Client

logger = logging.getLogger(__name__)

FIRST_WORD = 5.0  # seconds after which it is told what is waited for


@dataclass(frozen=True)
class Bounds:
    """Seconds in which a scheduler has to be reached.

    Parameters
    ----------
    listen : float
        In which something has to listen at its address.
    answer : float
        In which it has to answer as a scheduler.
    worker : float
        In which it has to have a worker.
    """

    listen: float = 20.0
    answer: float = 20.0
    worker: float = 60.0


BOUNDS = Bounds()


def require_scheduler(address: str, bounds: Bounds = BOUNDS) -> None:
    """Raise unless a Dask scheduler answers at an address; Dask might wait for it for ever.

    Raises
    ------
    ClusterError
        When nothing listens there, or something that is no scheduler; when certificates lack.
    """
    _require_certificates(address)
    _require_listener(address, bounds.listen)
    outcome: list[BaseException | dict[str, Any]] = []

    def ask() -> None:
        try:
            outcome.append(asyncio.run(_identity(address, bounds.answer)))
        except BaseException as error:  # handed to the thread that waits
            outcome.append(error)

    # A thread of its own, since a notebook's has a loop that runs already.
    thread = threading.Thread(target=ask, daemon=True, name="ask scheduler")
    thread.start()
    thread.join(FIRST_WORD)
    if thread.is_alive():
        logger.warning("waiting for an answer of the scheduler at %s", address)
        thread.join(2 * bounds.answer)
    answer = outcome[0] if outcome else TimeoutError()
    if isinstance(answer, BaseException):
        if refused := _refusal(answer):
            raise _error(
                address,
                f"the scheduler at {address} and this process do not take each other's "
                f"certificates ({refused}): those of both have to come from the authority of "
                "distributed.comm.tls.ca-file in Dask's configuration",
            ) from answer
        reason = str(answer) or f"no answer within {bounds.answer:g} s"
        raise _error(
            address,
            f"what listens at {address} does not answer as a Dask scheduler ({reason}); is it "
            "another service, one with tls:// in place of tcp://, or a Dask of another version?",
        ) from answer
    if answer.get("type") != "Scheduler":
        kind = str(answer.get("type", "service")).lower()
        raise _error(address, f"at {address} is a Dask {kind}, not a scheduler")


def _require_certificates(address: str) -> None:
    """Raise when what a secure address needs is not there, or the address is not secure enough."""
    import dask
    from distributed.security import Security

    if not address.startswith("tls://"):
        if dask.config.get("distributed.comm.require-encryption", None):
            raise _error(
                address,
                f"{address} is not encrypted, and distributed.comm.require-encryption of Dask's "
                "configuration is set: give an address with tls://",
            )
        return
    config = Security().get_tls_config_for_role("client")
    settings = {"ca_file": "ca-file", "cert": "client.cert", "key": "client.key"}
    missing = [key for name, key in settings.items() if not config.get(name)]
    if missing:
        raise _error(
            address,
            f"{address} needs certificates ({', '.join(missing)} not set): set "
            "distributed.comm.tls.ca-file, client.cert and client.key in Dask's configuration, or "
            "DASK_DISTRIBUTED__COMM__TLS__CA_FILE, …__CLIENT__CERT and …__CLIENT__KEY",
        )
    for name, key in settings.items():
        is_text = "\n" in config[name]  # Dask takes the certificate itself too
        if not is_text and not os.access(config[name], os.R_OK):
            raise _error(
                address,
                f"distributed.comm.tls.{key} of Dask's configuration names {config[name]}, which "
                "cannot be read",
            )


def _refusal(error: BaseException | None) -> str:
    """The reason of TLS in an error, or in what has led to it; empty without one."""
    while error is not None:
        if isinstance(error, ssl.SSLError):
            return getattr(error, "verify_message", "") or error.reason or str(error)
        error = error.__cause__
    return ""


def _require_listener(address: str, seconds: float) -> None:
    from distributed.comm import get_address_host_port

    try:
        host, port = get_address_host_port(address, strict=True)
    except ValueError as error:
        raise _error(address, f"{address} is no address of a Dask scheduler ({error})") from error
    began = time.monotonic()
    has_told = False
    while True:
        try:
            socket.create_connection((host, port), timeout=seconds).close()
        except socket.gaierror as error:
            raise _error(address, f"there is no host {host!r} ({error.strerror})") from error
        except OSError as error:
            waited = time.monotonic() - began
            if waited >= seconds:
                raise _error(
                    address,
                    f"no Dask scheduler answers at {address} "
                    f"({error.strerror or error}, for {waited:.0f} s)",
                ) from error
            if waited > FIRST_WORD and not has_told:
                has_told = True
                logger.warning("waiting for a scheduler at %s (%s)", address, error.strerror)
            time.sleep(0.5)  # before the next attempt: it may be about to start
        else:
            return


async def _identity(address: str, seconds: float) -> dict[str, Any]:
    from distributed.core import connect
    from distributed.security import Security

    arguments = Security().get_connection_args("client")
    async with asyncio.timeout(seconds):
        comm = await connect(address, timeout=seconds, **arguments)
        try:
            await comm.write({"op": "identity", "reply": True})
            answer: dict[str, Any] = await comm.read()
        finally:
            comm.abort()
        return answer


def own_versions() -> list[tuple[str, str, str]]:
    """What has to be the same on workers: its name, where its version is, the version here."""
    import distributed

    return [
        ("Python", "sys:version", sys.version),
        ("distributed", "distributed:__version__", distributed.__version__),
        ("mlaas4hep_dask", "mlaas4hep_dask:__version__", __version__),
    ]


def require_same_versions(client: Client) -> None:
    """Raise unless the workers that are there run our Python, our Dask and this package.

    Raises
    ------
    ClusterError
        When a worker has another version, or lacks the package.
    """
    from mlaas4hep_dask.waiting import ClusterHandle, workers_of

    cluster = ClusterHandle(client)
    workers = sorted(cluster.alive())
    for name, place, version in own_versions():
        # A function of the standard library, which every worker has.
        answers = cluster.on_workers(pkgutil.resolve_name, place, workers=workers, what="versions")
        here = shortened(name, version)
        if name == "Python":  # which every worker has, so that the others do not answer
            for worker in set(workers) - answers.keys():
                if worker in cluster.alive():
                    raise ClusterError(
                        f"{workers_of(client).name(worker)} has joined, and the scheduler cannot "
                        "reach it at that address: a firewall closes its port, or the address is "
                        "that of another network",
                        worker=worker,
                    )
        for worker in workers:
            there = shortened(name, answers[worker]) if worker in answers else ""
            if there != here:
                there = f"{name} {there}" if there else f"no {name}"
                raise ClusterError(
                    f"{workers_of(client).name(worker)} has {there}, and this process has {name} "
                    f"{here}: the workers have to run the same environment",
                    worker=worker,
                )


def shortened(name: str, version: str) -> str:
    """The version as far as it matters: of Python, all patches of 3.11 are alike."""
    return ".".join(version.split(".")[:2]) if name == "Python" else version


def _error(address: str, text: str) -> ClusterError:
    return ClusterError(text, address=address)
