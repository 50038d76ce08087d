"""Objective: what a network learns, one class per kind; nobody else asks for the kind.

A kind owns targets and labels, loss, tally and metrics, activation, the names of scores and its
form in JSON. The kinds are plain Python, since the configuration asks them which there are: what
computes is in `arithmetic`, on NumPy and torch, which they import inside functions.
"""

from mlaas4hep_dask.objective.classes import Classes
from mlaas4hep_dask.objective.kinds import (
    KINDS,
    WORDS,
    loss_names,
    metric_names,
    objective_from_json,
    objective_of,
)
from mlaas4hep_dask.objective.losses import LOSSES, Loss
from mlaas4hep_dask.objective.objective import Objective, Selected, Spread, Tally
from mlaas4hep_dask.objective.reconstruction import Reconstruction
from mlaas4hep_dask.objective.regression import Regression
from mlaas4hep_dask.objective.two_classes import BINARY, TwoClasses

__all__ = [
    "BINARY",
    "KINDS",
    "LOSSES",
    "WORDS",
    "Classes",
    "Loss",
    "Objective",
    "Reconstruction",
    "Regression",
    "Selected",
    "Spread",
    "Tally",
    "TwoClasses",
    "loss_names",
    "metric_names",
    "objective_from_json",
    "objective_of",
]
