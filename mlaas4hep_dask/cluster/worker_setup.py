"""Makes a worker of ``dask worker --preload`` ready to read, measure and encode.

Dask imports what is named there in the worker and in the process that watches over it, its nanny.
This module imports nothing itself, so that a job has no second copy of all libraries in memory,
and does not wait until they are imported twice.
"""

import importlib
from typing import Any

PRELOAD = "mlaas4hep_dask.dataset.preload"


def dask_setup(worker: Any) -> None:  # noqa: ARG001  # Dask gives it
    """Import what tasks need, before the worker joins.

    What cannot be imported stands in the job's log, and is told to who gives the worker tasks.
    """
    importlib.import_module(PRELOAD)
