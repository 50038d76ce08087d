"""Predict: whole data sets scored by a bundle's model on a cluster."""

from typing import TYPE_CHECKING

from mlaas4hep_dask import on_first_use

if TYPE_CHECKING:
    from mlaas4hep_dask.predict.scoring import Predicted, predict_files

__all__ = ["Predicted", "predict_files"]

__getattr__ = on_first_use(__name__, Predicted="scoring", predict_files="scoring")
