"""The names by which normalisations are chosen, made of those of functions and scales."""

from __future__ import annotations

from mlaas4hep_dask.formulas.functions import FUNCTIONS, Function
from mlaas4hep_dask.formulas.scales import SCALES, Scale

PLAIN = "none"  # a scale, whose name is left out behind a function
NAMES = (
    "auto",
    *SCALES,
    *(
        name
        for function in FUNCTIONS
        for name in (function, *(f"{function}-{scale}" for scale in SCALES if scale != PLAIN))
    ),
)
LINE, TABLE = NUMBERS = ("shift", "scale"), ("x", "y")  # keys of numbers in place of a name
COMBINES = ("sum", "max", "count")  # what stands in a cell of an image with several objects
OUT_OF_RANGE = ("pass", "clip")  # what happens to values outside the specs


def parts_of(name: str) -> tuple[Function | None, Scale]:
    """The function, if any, and the scale that a name is made of.

    Parameters
    ----------
    name : str
        One of `NAMES`, but for ``auto``, which is found anew for every branch.
    """
    if name in FUNCTIONS:
        return FUNCTIONS[name], SCALES[PLAIN]
    function, _, scale = name.rpartition("-")
    return (FUNCTIONS[function] if function else None), SCALES[scale]
