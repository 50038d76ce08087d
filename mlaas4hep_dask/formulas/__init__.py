"""Formulas: how a value becomes a number near 0; functions and scales, known by their names."""

from mlaas4hep_dask.formulas.functions import FUNCTIONS, Function
from mlaas4hep_dask.formulas.names import COMBINES, NAMES, NUMBERS, OUT_OF_RANGE, parts_of
from mlaas4hep_dask.formulas.scales import SCALES, unscaled

__all__ = [
    "COMBINES",
    "FUNCTIONS",
    "NAMES",
    "NUMBERS",
    "OUT_OF_RANGE",
    "SCALES",
    "Function",
    "parts_of",
    "unscaled",
]
