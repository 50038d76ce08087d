"""Run: the composer, with the order of stages, what is printed and the exit codes."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlaas4hep_dask.run.result import RunResult
    from mlaas4hep_dask.run.stages import fit

__all__ = ["RunResult", "fit"]


def __getattr__(name: str) -> Any:
    if name == "fit":
        from mlaas4hep_dask.run.stages import fit

        return fit
    if name == "RunResult":
        from mlaas4hep_dask.run.result import RunResult

        return RunResult
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
