"""Keeps Dask's own report of what a cluster did."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from distributed import Client

logger = logging.getLogger(__name__)


@contextmanager
def performance_report(client: Client, file: Path) -> Iterator[None]:
    """Keep Dask's performance report of what is done in the context, however that ends.

    A report that cannot be made, as without bokeh on the scheduler, is warned of.

    Parameters
    ----------
    client : distributed.Client
        Of the cluster.
    file : Path
        An HTML page that needs no network; it appears as a whole. Its folder has to be there when
        the context ends.
    """
    from distributed import performance_report as dask_report

    part = file.with_name(f".{file.name}")
    report = dask_report(filename=str(part), mode="inline")
    is_begun = False
    try:
        with client.as_current():
            report.__enter__()
        is_begun = True
    except Exception as error:  # of whatever kind: it came from another process
        logger.warning("there will be no %s: %s", file.name, error)
    try:
        yield
    finally:
        if is_begun:
            try:
                with client.as_current():
                    report.__exit__(None, None, None)
                part.rename(file)
            except Exception as error:
                part.unlink(missing_ok=True)
                logger.warning("there is no %s: %s", file.name, error)
