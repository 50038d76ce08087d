"""Score: a loaded network; raw events in, their scores out, in natural batches."""

from typing import TYPE_CHECKING

from mlaas4hep_dask import on_first_use

if TYPE_CHECKING:
    from mlaas4hep_dask.score.opening import open_scorer
    from mlaas4hep_dask.score.scorer import Scorer
    from mlaas4hep_dask.score.service import Service

__all__ = ["Scorer", "Service", "open_scorer"]

__getattr__ = on_first_use(__name__, Scorer="scorer", Service="service", open_scorer="opening")
