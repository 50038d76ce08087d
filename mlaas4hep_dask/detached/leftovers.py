"""Removes what a head that is not alive has left behind."""

from __future__ import annotations

import os
from pathlib import Path

from mlaas4hep_dask.cluster.secrets import remove_secrets
from mlaas4hep_dask.detached.head import HEAD, VARIABLE, Head, jobs_folder

CREDENTIALS = "credentials"  # in the folder of a head: its copies of proxy and token


def remove_credentials(output: Path) -> None:
    """Remove the copies of credentials of the heads that an output had, and that are not alive.

    Those of a head of which that cannot be told, and of the one in which this process works, stay.
    """
    for folder in sorted(jobs_folder(output).glob(f"*-head-*/{CREDENTIALS}")):
        head = Head.read(folder.parent / HEAD)  # it is written when the job is submitted
        is_own = folder.parent.name == os.environ.get(VARIABLE)
        if head is not None and not is_own and head.is_alive() is False:
            remove_secrets(folder)
