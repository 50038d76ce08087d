"""Specs: the merged statistics of all branches over a data set."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlaas4hep_dask.specs.branch import BranchSpecs
    from mlaas4hep_dask.specs.sample import SampleSpecs
    from mlaas4hep_dask.specs.specs import Specs

_PLACES = {
    "BranchSpecs": "branch",
    "SampleSpecs": "sample",
    "Specs": "specs",
}
__all__ = ["BranchSpecs", "SampleSpecs", "Specs"]


def __getattr__(name: str) -> Any:
    # Found on first use, so that the command line can print a line before numba is imported.
    if name in _PLACES:
        from importlib import import_module

        return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
