"""Cluster: the only room that knows where workers come from; hands out a Dask client."""

from mlaas4hep_dask.cluster.attach import NO_LOGS, connect, cool_down, warm_up

__all__ = ["NO_LOGS", "connect", "cool_down", "warm_up"]
