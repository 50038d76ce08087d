"""Specs: the merged statistics of all branches over a data set."""

from typing import TYPE_CHECKING

from mlaas4hep_dask import on_first_use

if TYPE_CHECKING:
    from mlaas4hep_dask.specs.branch import BranchSpecs
    from mlaas4hep_dask.specs.sample import SampleSpecs
    from mlaas4hep_dask.specs.specs import Specs

__all__ = ["BranchSpecs", "SampleSpecs", "Specs"]

__getattr__ = on_first_use(__name__, BranchSpecs="branch", SampleSpecs="sample", Specs="specs")
