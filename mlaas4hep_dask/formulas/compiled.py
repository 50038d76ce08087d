"""Compiled loops over functions of values; arrays in, arrays out.

All that is compiled with `value_of` inside stands in this file: numba's cache of a loop does not
notice that a function in another file has changed.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]  # numba is not annotated
def value_of(code: int, value: float) -> float:
    """The function of one value; NaN where it has none."""
    if code == 0:  # log
        return np.log(value) if value > 0 else np.nan
    if code == 1:  # symlog
        return np.copysign(np.log1p(abs(value)), value)  # type: ignore[no-any-return]
    return np.nan


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def values_of(code: int, values: NDArray[Any]) -> NDArray[np.float64]:
    """The function of each of ``values``."""
    out = np.empty(values.size)
    for i in range(values.size):
        out[i] = value_of(code, np.float64(values[i]))
    return out


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def normalise_function(
    values: NDArray[Any],
    code: int,
    above: float,
    shift: float,
    scale: float,
    low: float,
    high: float,
    clip: bool,
    out: NDArray[np.float32],
) -> tuple[int, int]:
    """Write ``(function(values) - shift) * scale`` to ``out``, NaN where that is not finite.

    Values that are not above ``above`` become NaN too, and are counted as such alone. Others
    outside [low, high] are counted and, with ``clip``, moved to the nearer bound first.

    Returns
    -------
    tuple of int
        Number of values that became NaN, and number outside [low, high].
    """
    num_missing = 0
    num_outside = 0
    for i in range(values.size):
        value: Any = np.float64(values[i])
        if not (abs(value) < np.inf and value > above):
            num_missing += 1
            out[i] = np.float32(np.nan)
            continue
        if value < low or value > high:
            num_outside += 1
            if clip:
                value = low if value < low else high
        out[i] = np.float32((value_of(code, value) - shift) * scale)
    return num_missing, num_outside
