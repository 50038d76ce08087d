"""Files of Rucio's data sets, with the replicas that can be read."""

from __future__ import annotations

import configparser
import logging
import re
from collections.abc import Iterator
from typing import Any

from mlaas4hep_dask.catalog.locations import Unusable
from mlaas4hep_dask.errors import MissingExtraError, listed

SCHEMES = ("root", "https", "davs", "http")  # of replicas that are read; davs is WebDAV over https


def rucio_files(entry: str, timeout: float) -> Iterator[str]:
    """Files of a data set or container of Rucio, each with its replicas joined by ``|``.

    The server, the account and the credentials are those of the Rucio client's own configuration.

    Parameters
    ----------
    entry
        ``rucio://scope:name``.
    timeout
        Seconds in which the server must send the next piece of an answer.

    Raises
    ------
    Unusable
        When Rucio cannot be asked, does not know the data set, or a file of it has no replica.
    MissingExtraError
        When Rucio's client is not installed.
    """
    scope, _, name = entry.removeprefix("rucio://").strip("/").partition(":")
    if not scope or not name:
        raise Unusable(f"expected rucio://scope:name, found {entry!r}")
    try:
        from rucio.client import Client
        from rucio.common.config import config_get
        from rucio.common.exception import RucioException
    except ImportError:
        raise MissingExtraError.of("rucio", module="rucio") from None
    log = logging.getLogger(f"{__name__}.client")
    log.setLevel(logging.CRITICAL)  # what it logs is in the error that it raises
    try:
        host = config_get("client", "rucio_host", check_config_table=False)
    except (RucioException, configparser.Error) as error:
        text = f"Rucio's client is not configured ({_reason(error)}); RUCIO_CONFIG names its file"
        raise Unusable(text) from None
    client = None
    try:
        client = Client(timeout=timeout, logger=log)
        files = {_did(file) for file in client.list_files(scope, name)}
        # A file whose replicas are all unavailable is left out of the answer.
        available = list(client.list_replicas([{"scope": scope, "name": name}], schemes=[*SCHEMES]))
    except (RucioException, configparser.Error, OSError) as error:
        text = f"Rucio at {host} does not list {scope}:{name} ({_reason(error)})"
        raise Unusable(text) from None
    finally:
        if client is not None:
            client.session.close()
    if not files:
        raise Unusable(f"Rucio's data set {scope}:{name} has no file")
    replicas = {_did(file): _urls(file.get("pfns") or {}) for file in available}
    gone = sorted(did for did in files if not replicas.get(did))
    if gone:
        raise Unusable(
            f"Rucio knows no available replica by {', '.join(SCHEMES)} of {len(gone)} of the "
            f"{len(files)} files of {scope}:{name}: {listed(gone, most=3)}"
        )
    for did in sorted(files):
        yield "|".join(replicas[did])


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _did(file: dict[str, Any]) -> str:
    return f"{file['scope']}:{file['name']}"


def _urls(pfns: dict[str, dict[str, Any]]) -> list[str]:
    """URLs of one file, the nearest to this machine first, by what Rucio's server knows."""
    ordered = sorted(pfns, key=lambda url: (pfns[url].get("priority", 0), url))
    return [re.sub(r"^davs://", "https://", url) for url in ordered]
