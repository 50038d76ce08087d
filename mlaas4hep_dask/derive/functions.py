"""What an expression may call, with the number of arguments that each function takes."""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np
from numpy.typing import NDArray

CONSTANTS: dict[str, float | bool] = {
    "pi": math.pi,
    "nan": math.nan,
    "inf": math.inf,
    "true": True,
    "false": False,
}

# Computed in float64, whatever the branches' dtypes are: 32 bits lose masses of near objects.
ARITHMETIC: dict[str, Any] = {
    "+": np.add,
    "*": np.multiply,
    "/": np.divide,
    "//": np.floor_divide,
    "%": np.remainder,
    "**": np.float_power,
    "pow": np.float_power,
    "sqrt": np.sqrt,
    "exp": np.exp,
    "log": np.log,
    "log10": np.log10,
    "log2": np.log2,
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "atan2": np.arctan2,
    "sinh": np.sinh,
    "cosh": np.cosh,
    "tanh": np.tanh,
    "asinh": np.arcsinh,
    "hypot": np.hypot,
}

# Exact: floating-point numbers keep their dtype, whole numbers become float64.
EXACT: dict[str, Any] = {
    "abs": np.abs,
    "floor": np.floor,
    "ceil": np.ceil,
    "round": np.rint,
    "sign": np.sign,
}

TESTS: dict[str, Any] = {"isnan": np.isnan, "isfinite": np.isfinite}

# Not NumPy's functions, which refuse a whole number beyond int64 beside another number.
COMPARISONS: dict[str, Any] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}

LOGIC: dict[str, Any] = {"&": np.bitwise_and, "|": np.bitwise_or}

EXTREMES: dict[str, Any] = {"min": np.minimum, "max": np.maximum}

#: Fewest and most arguments; None for any number.
FUNCTIONS: dict[str, tuple[int, int | None]] = {
    **dict.fromkeys(("sum", "mean", "count", "any", "all"), (1, 1)),
    **dict.fromkeys(EXTREMES, (1, None)),
    **dict.fromkeys((*EXACT, *TESTS), (1, 1)),
    **{
        name: (function.nin, function.nin)
        for name, function in ARITHMETIC.items()
        if name.isidentifier()
    },
    "delta_phi": (2, 2),
    "where": (3, 3),
    "delta_r": (2, 4),
    "mass": (1, None),
    **dict.fromkeys(("pt", "eta", "phi", "px", "py", "pz", "energy"), (1, 1)),
    **dict.fromkeys(("p4", "p4_energy", "p4_xyz", "p4_xyzm"), (4, 4)),
}

#: Of the functions whose number of arguments has gaps: what they take.
TAKES = {
    "delta_r": "two objects, as in delta_r(Jet, Muon[:, 0]), or eta, phi, eta and phi",
    "mass": "one object, as in mass(Muon[:, 0] + Muon[:, 1]), or pt, eta, phi and mass of each",
}


def bitwise(name: str, x: Any, y: Any) -> Any:
    """``&`` or ``|`` of whole numbers, arrays or Python's, bit by bit.

    Where one is uint64 and the other negative, the latter stands for its bits in 64.
    """
    x, y = _of_width(x, beside=y), _of_width(y, beside=x)
    dtype = np.result_type(x.dtype, y.dtype)
    dtype = np.dtype(np.uint64) if dtype.kind == "f" else dtype
    return LOGIC[name](x.astype(dtype, copy=False), y.astype(dtype, copy=False))


def _of_width(value: Any, *, beside: Any) -> NDArray[Any]:
    """A Python integer in the dtype beside it, if it fits."""
    if isinstance(value, np.ndarray):
        return value
    dtype = beside.dtype if isinstance(beside, np.ndarray) else np.dtype(np.int64)
    limits = np.iinfo(dtype)
    fits = limits.min <= value <= limits.max
    return np.asarray(value, dtype=dtype if fits else np.min_scalar_type(value))


def where(condition: Any, x: Any, y: Any) -> Any:
    """``x`` where the condition holds, else ``y``, in a dtype that holds both.

    NumPy makes -1 beside unsigned numbers their largest one.
    """
    return np.where(condition, _wide(x, beside=y), _wide(y, beside=x))


def _wide(value: Any, *, beside: Any) -> Any:
    """A Python number in a wider dtype than that beside it, if it does not fit into that."""
    kind = beside.dtype.kind if isinstance(beside, np.ndarray) else ""
    if type(value) is int and kind in "iu":  # also beside a Python number
        return _of_width(value, beside=beside)
    if isinstance(value, np.ndarray) or kind != "f" or not math.isfinite(value):
        return value
    return value if abs(value) <= np.finfo(beside.dtype).max else np.float64(value)


def delta_phi(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float64]:
    """The difference of two angles in radians, in [-pi, pi)."""
    difference = np.subtract(a, b, dtype=np.float64)
    return np.asarray(np.remainder(difference + math.pi, 2 * math.pi) - math.pi)


def sums(values: NDArray[Any], offsets: NDArray[np.int64]) -> NDArray[Any]:
    """The sum of every event's values, 0 where there is none; whole numbers stay whole.

    Sums that int64 may not hold, as of times in nanoseconds, are of float64.
    """
    whole = values.dtype.kind in "bi" or (values.dtype.kind == "u" and values.itemsize < 8)
    if whole and values.itemsize == 8 and len(values):
        longest = int(np.diff(offsets).max())
        whole = max(abs(int(values.min())), abs(int(values.max()))) * longest < 2**63
    return _reduced(np.add, values.astype(np.int64 if whole else np.float64), offsets, 0)


def extremes(name: str, values: NDArray[Any], offsets: NDArray[np.int64]) -> NDArray[Any]:
    """The least or greatest of every event's floating-point values, NaN where there is none."""
    return _reduced(EXTREMES[name], values, offsets, np.nan)


def any_of(values: NDArray[np.bool_], offsets: NDArray[np.int64]) -> NDArray[Any]:
    """True where at least one of an event's values is."""
    return _reduced(np.logical_or, values, offsets, False)


def all_of(values: NDArray[np.bool_], offsets: NDArray[np.int64]) -> NDArray[Any]:
    """True where all of an event's values are, also when there is none."""
    return _reduced(np.logical_and, values, offsets, True)


def picked(values: NDArray[Any], offsets: NDArray[np.int64], index: int) -> NDArray[Any]:
    """The value at ``index`` of every event, NaN where there are too few."""
    multiplicities = np.diff(offsets)
    has = multiplicities > index if index >= 0 else multiplicities >= -index
    results = np.full(multiplicities.size, np.nan, dtype=values.dtype)
    results[has] = values[(offsets[:-1] if index >= 0 else offsets[1:])[has] + index]
    return results


def in_slice(
    offsets: NDArray[np.int64], start: int | None, stop: int | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions and multiplicities of the objects in a slice of every event."""
    multiplicities = np.diff(offsets)
    first = _bounded(0 if start is None else start, multiplicities)
    last = multiplicities if stop is None else _bounded(stop, multiplicities)
    num_inside = np.maximum(last - first, 0)
    ends = np.cumsum(num_inside)
    positions = np.arange(int(ends[-1]) if ends.size else 0)
    return positions + np.repeat(offsets[:-1] + first - (ends - num_inside), num_inside), num_inside


def _bounded(bound: int, multiplicities: NDArray[np.int64]) -> NDArray[np.int64]:
    return (
        np.minimum(bound, multiplicities) if bound >= 0 else np.maximum(multiplicities + bound, 0)
    )


def _reduced(
    ufunc: Any, values: NDArray[Any], offsets: NDArray[np.int64], empty: Any
) -> NDArray[Any]:
    starts = offsets[:-1]
    has = starts < offsets[1:]
    results = np.full(starts.size, empty, dtype=values.dtype)
    # an event without objects takes no room, so that each start ends where the next begins
    results[has] = ufunc.reduceat(values, starts[has]) if values.size else empty
    return results
