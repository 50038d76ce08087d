"""Normalise: the contents of one branch as float32 near 0."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlaas4hep_dask.encode import kernels
from mlaas4hep_dask.encode.scaling import Scaling
from mlaas4hep_dask.formulas.compiled import normalise_function


def normalised(content: NDArray[Any], scaling: Scaling) -> tuple[NDArray[np.float32], int, int]:
    """Encoded contents, NaN where missing, and the counts of `normalise_into`."""
    out = np.empty(content.size, dtype=np.float32)
    return out, *normalise_into(content, scaling, out)


def normalise_into(
    content: NDArray[Any], scaling: Scaling, out: NDArray[np.float32]
) -> tuple[int, int]:
    """Encoded contents in ``out``; the numbers of missing values and of those out of range.

    Placeholders that are encoded as missing are not counted.
    """
    low, high, clip = scaling.low, scaling.high, scaling.clip
    numbers: tuple[int, int]
    if (table := scaling.table) is not None:
        numbers = kernels.normalise_table(content, *table.arrays, low, high, clip, out)
    elif (function := scaling.function) is None:
        numbers = kernels.normalise(content, scaling.shift, scaling.scale, low, high, clip, out)
    else:
        numbers = normalise_function(
            content,
            function.code,
            function.above,
            scaling.shift,
            scaling.scale,
            low,
            high,
            clip,
            out,
        )
    if scaling.absent is not None:
        kernels.blank(content, scaling.absent, out)
    return numbers
