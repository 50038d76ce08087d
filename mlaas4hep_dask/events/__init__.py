"""Events as columns: flat and jagged branches, and rows of them."""

from mlaas4hep_dask.events.events import Branch, Events

__all__ = ["Branch", "Events"]
