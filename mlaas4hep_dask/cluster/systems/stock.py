"""The classes and the defaults of dask-jobqueue."""

from __future__ import annotations

import importlib
import signal
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from mlaas4hep_dask.errors import MissingExtraError


def job_class(module: str, name: str) -> Any:
    """A class of jobs, by its module and its name."""
    return getattr(importlib.import_module(f"dask_jobqueue.{module}"), name)


@cache
def defaults() -> dict[str, Any]:
    """Section ``jobqueue`` of dask-jobqueue's own file."""
    interrupted = signal.getsignal(signal.SIGINT)
    try:
        # In the main thread alone: it takes Ctrl-C for itself, which is undone.
        package = importlib.import_module("dask_jobqueue")
        signal.signal(signal.SIGINT, interrupted)
    except ModuleNotFoundError as error:
        raise MissingExtraError.of("cluster", module="dask_jobqueue") from error
    file = Path(package.__file__ or "").with_name("jobqueue.yaml")
    values: dict[str, Any] = yaml.safe_load(file.read_text("utf-8"))["jobqueue"]
    return values
