"""Specs: the merged statistics of all branches over a data set."""

from mlaas4hep_dask.specs.events import Branch, Events
from mlaas4hep_dask.specs.specs import BranchSpecs, SampleSpecs, Specs

__all__ = ["Branch", "BranchSpecs", "Events", "SampleSpecs", "Specs"]
