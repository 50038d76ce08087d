"""Cluster: the only room that knows where workers come from; hands out a Dask client."""

from mlaas4hep_dask.cluster.attach import USUAL_RANKS, connect, cool_down, silence, warm_up
from mlaas4hep_dask.cluster.dashboard import dashboard_lines

__all__ = ["USUAL_RANKS", "connect", "cool_down", "dashboard_lines", "silence", "warm_up"]
