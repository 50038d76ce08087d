"""Serve: HTTP requests with raw events in, scores of a bundle's model out."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlaas4hep_dask.serve.app import build_app

__all__ = ["build_app"]


def __getattr__(name: str) -> Any:
    # Found on first use, so that the command line can name a missing extra in one line.
    if name == "build_app":
        from mlaas4hep_dask.serve.app import build_app

        return build_app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
