"""Dataset: the Dask room, with reductions, lazy collections and the scheduling of blocks."""

from mlaas4hep_dask.dataset.dataset import DaskArrays, Dataset
from mlaas4hep_dask.dataset.plan import Plan

__all__ = ["DaskArrays", "Dataset", "Plan"]
