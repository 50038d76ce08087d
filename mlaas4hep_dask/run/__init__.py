"""Run: the composer, with the order of stages, what is printed and the exit codes."""

from typing import TYPE_CHECKING

from mlaas4hep_dask import on_first_use

if TYPE_CHECKING:
    from mlaas4hep_dask.run.result import RunResult
    from mlaas4hep_dask.run.stages import fit

__all__ = ["RunResult", "fit"]

__getattr__ = on_first_use(__name__, RunResult="result", fit="stages")
