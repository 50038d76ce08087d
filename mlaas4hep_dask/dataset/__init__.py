"""Dataset: the Dask room, with reductions, lazy collections and the scheduling of blocks."""

from mlaas4hep_dask.dataset.arrays import DaskArrays
from mlaas4hep_dask.dataset.dataset import Dataset
from mlaas4hep_dask.dataset.plan import Plan

__all__ = ["DaskArrays", "Dataset", "Plan"]
