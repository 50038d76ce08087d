"""Run: the composer, with the order of stages, what is printed and the exit codes."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlaas4hep_dask.run.stages import RunResult, fit

__all__ = ["RunResult", "fit"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from mlaas4hep_dask.run import stages

        return getattr(stages, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
