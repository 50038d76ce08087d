"""Predict: whole data sets scored by a bundle's model on a cluster."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlaas4hep_dask.predict.scoring import Predicted, predict_files

__all__ = ["Predicted", "predict_files"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from mlaas4hep_dask.predict import scoring

        return getattr(scoring, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
