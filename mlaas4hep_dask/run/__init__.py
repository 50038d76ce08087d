"""Run: the composer, with the order of stages, what is printed and the exit codes."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlaas4hep_dask.run.fit import RunResult, fit

__all__ = ["RunResult", "fit"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from mlaas4hep_dask.run.fit import RunResult, fit

        # The import has just made `fit` the module of that name.
        globals().update(RunResult=RunResult, fit=fit)
        return globals()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
