"""Entry: where processes of commands begin; Ctrl-C ends them without a trace from here on."""

from __future__ import annotations

import signal
from importlib import import_module


def enter(module: str) -> int:
    """Run ``command()`` of a module, which is imported here; its exit status.

    What a command needs takes a while to import. As it is interrupted then, Python would print
    where it was.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it may be ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    status: int = import_module(module).command()
    return status


def mlaas4hep() -> int:
    """The command ``mlaas4hep``."""
    return enter("mlaas4hep_dask.__main__")


def run() -> int:
    """The command ``mlaas4hep-run``."""
    return enter("mlaas4hep_dask.run.cli")


def predict() -> int:
    """The command ``mlaas4hep-predict``."""
    return enter("mlaas4hep_dask.predict.cli")


def serve() -> int:
    """The command ``mlaas4hep-serve``."""
    return enter("mlaas4hep_dask.serve.cli")


def specs() -> int:
    """The command ``mlaas4hep-specs``."""
    return enter("mlaas4hep_dask.specs.cli")
