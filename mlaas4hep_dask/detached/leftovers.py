"""Removes the secrets that heads and drivers that are not alive have left behind."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

from mlaas4hep_dask.cluster.batch.records import DRIVER, Driver, is_silent
from mlaas4hep_dask.cluster.secrets import remove_secrets
from mlaas4hep_dask.detached.head import HEAD, Head, jobs_folder
from mlaas4hep_dask.places import VARIABLE

CREDENTIALS = "credentials"  # in the folder of a head: its copies of proxy and token


def remove_left_secrets(output: Path) -> None:
    """Remove the keys and copies of credentials of heads and drivers that are not alive.

    Those of which that cannot be told, and those of the head in which this process works, stay. A
    driver on another machine is dead when its head has left the queue, or when it gave no sign of
    life for a day.

    Parameters
    ----------
    output : Path
        The run directory, or the file of scores, that they worked for.
    """
    jobs = jobs_folder(output)

    @cache
    def is_gone(head: str) -> bool:
        record = None if head == os.environ.get(VARIABLE) else Head.read(jobs / head / HEAD)
        return record is not None and record.found().is_alive() is False

    left = [
        folder
        for folder in sorted(jobs.glob(f"*-head-*/{CREDENTIALS}"))
        if is_gone(folder.parent.name)  # its record is written before the job is submitted
    ]
    for file in sorted(jobs.glob(f"*/{DRIVER}")):
        driver = Driver.read(file.parent)
        if driver.keys and Path(driver.keys).is_dir() and _is_dead(driver, file.parent, is_gone):
            left.append(Path(driver.keys))
    for keys in left:
        remove_secrets(keys)


def _is_dead(driver: Driver, folder: Path, is_gone: Callable[[str], bool]) -> bool:
    lives = driver.is_alive()
    if lives is None:
        return (bool(driver.head) and is_gone(driver.head)) or is_silent(folder)
    return not lives
