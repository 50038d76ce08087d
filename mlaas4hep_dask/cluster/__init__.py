"""Cluster: the only room that knows where workers come from; hands out a Dask client."""

from mlaas4hep_dask.cluster.connect import connect

__all__ = ["connect"]
