"""Logarithms of values, whose moments are measured for branches that are encoded by them."""

from __future__ import annotations

from typing import Any, Literal

import numba
import numpy as np
from numpy.typing import NDArray

Transform = Literal["identity", "log", "symlog"]


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]  # numba is not annotated
def logarithm(value: float, is_signed: bool) -> float:
    """The natural logarithm; with ``is_signed`` sign(value) log(1 + abs(value)).

    Without a sign, it is NaN for 0 and below.
    """
    if is_signed:
        return np.copysign(np.log1p(abs(value)), value)  # type: ignore[no-any-return]
    return np.log(value) if value > 0 else np.nan


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def logarithms(values: NDArray[Any], is_signed: bool) -> NDArray[np.float64]:
    """The `logarithm` of each of ``values``."""
    out = np.empty(values.size)
    for i in range(values.size):
        out[i] = logarithm(np.float64(values[i]), is_signed)
    return out
