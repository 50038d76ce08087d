"""Specs: the merged statistics of all branches over a data set."""

from mlaas4hep_dask.specs.branch import BranchSpecs
from mlaas4hep_dask.specs.events import Branch, Events
from mlaas4hep_dask.specs.sample import SampleSpecs
from mlaas4hep_dask.specs.specs import Specs

__all__ = ["Branch", "BranchSpecs", "Events", "SampleSpecs", "Specs"]
