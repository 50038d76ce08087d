"""Score: a loaded network; raw events in, their scores out, in natural batches."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlaas4hep_dask.score.opening import open_scorer
    from mlaas4hep_dask.score.scorer import Scorer
    from mlaas4hep_dask.score.service import Service

__all__ = ["Scorer", "Service", "open_scorer"]


def __getattr__(name: str) -> Any:
    # Found on first use: they need torch, and the forms of requests do not.
    if name == "Scorer":
        from mlaas4hep_dask.score.scorer import Scorer

        return Scorer
    if name == "open_scorer":
        from mlaas4hep_dask.score.opening import open_scorer

        return open_scorer
    if name == "Service":
        from mlaas4hep_dask.score.service import Service

        return Service
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
