"""Serve: HTTP requests with raw events in, scores of a bundle's model out."""

from typing import TYPE_CHECKING

from mlaas4hep_dask import on_first_use

if TYPE_CHECKING:
    from mlaas4hep_dask.serve.app import build_app

__all__ = ["build_app"]

__getattr__ = on_first_use(__name__, build_app="app")
