"""Arithmetic of whole numbers that float64 would round before it begins."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
from numpy.typing import NDArray

_LARGEST = 2**53  # float64 holds every whole number up to here
_OPERATORS: dict[Any, Any] = {
    np.add: operator.add,
    np.subtract: operator.sub,
    np.multiply: operator.mul,
    np.floor_divide: operator.floordiv,
    np.remainder: operator.mod,
}


def arithmetic(function: Any, x: Any, *others: Any) -> NDArray[np.float64]:
    """A function of numbers in float64: of whole ones the exact result, rounded once.

    In float64 alone ``event % 2`` would be 0 for all events with numbers beyond 2**53, and a
    difference of two times in nanoseconds a multiple of 256.

    Parameters
    ----------
    function : numpy.ufunc
        The function.
    x, *others : ndarray or number
        Its operands; arrays are of one shape.

    Returns
    -------
    ndarray of float64
    """
    rounded = np.asarray(function(x, *others, dtype=np.float64))
    if function not in _OPERATORS or not others:
        return rounded
    operands = (x, *others)
    if not all(map(_is_whole, operands)) or not any(map(_may_be_large, operands)):
        return rounded
    places = np.logical_or(*(np.abs(np.asarray(each, np.float64)) >= _LARGEST for each in operands))
    if function in (np.floor_divide, np.remainder):
        places = places & np.not_equal(others[0], 0)
    if places.any():
        exact = _OPERATORS[function](*(_as_python(each, places) for each in operands))
        rounded[np.broadcast_to(places, rounded.shape)] = np.asarray(exact, dtype=np.float64)
    return rounded


def _is_whole(values: Any) -> bool:
    return values.dtype.kind in "iu" if isinstance(values, np.ndarray) else type(values) is int


def _may_be_large(values: Any) -> bool:
    return values.itemsize == 8 if isinstance(values, np.ndarray) else abs(values) >= _LARGEST


def _as_python(values: Any, places: NDArray[np.bool_]) -> Any:
    """Python's integers, which have no largest one."""
    return values[places].astype(object) if isinstance(values, np.ndarray) else values
