"""Formulas: how a value becomes a number near 0; functions and scales, known by their names."""

from mlaas4hep_dask.formulas.functions import FUNCTIONS, Function
from mlaas4hep_dask.formulas.names import NAMES, OUT_OF_RANGE, parts_of
from mlaas4hep_dask.formulas.scales import SCALES, unscaled

__all__ = [
    "FUNCTIONS",
    "NAMES",
    "OUT_OF_RANGE",
    "SCALES",
    "Function",
    "parts_of",
    "unscaled",
]
