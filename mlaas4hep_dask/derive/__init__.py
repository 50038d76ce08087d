"""Derive: expressions over the branches of events, as text that training and serving share."""

from mlaas4hep_dask.derive.expression import Expression

__all__ = ["Expression"]
