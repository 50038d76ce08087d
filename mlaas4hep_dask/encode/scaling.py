"""Scaling: how the values of one branch become numbers near 0, as derived from its specs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlaas4hep_dask.encode.automatic import automatic
from mlaas4hep_dask.errors import EncodeError
from mlaas4hep_dask.formulas import FUNCTIONS, NAMES, Function, parts_of, unscaled
from mlaas4hep_dask.formulas.compiled import values_of
from mlaas4hep_dask.formulas.names import TABLE
from mlaas4hep_dask.formulas.scales import Scale
from mlaas4hep_dask.specs import BranchSpecs

LARGEST = 3.4e38  # of float32


@dataclass(frozen=True)
class Table:
    """A piecewise linear function through the points (x, y); its end pieces go on outside.

    Both run one way: ``x`` ascends, ``y`` ascends or descends, so that `decode` finds back.
    """

    x: tuple[float, ...]
    y: tuple[float, ...]

    @cached_property
    def arrays(self) -> tuple[NDArray[np.float64], ...]:
        """What `kernels.normalise_table` takes: starts of the pieces, x, y and slopes.

        A piece begins at each point; that of the last one goes on as the one before, so that the
        function is exact at all points.
        """
        x, y = np.array(self.x), np.array(self.y)
        slopes = np.diff(y) / np.diff(x)
        starts = np.full(max(1 << (x.size - 1).bit_length(), 4), np.inf)
        starts[: x.size - 1] = x[1:]
        return starts, x, y, np.append(slopes, slopes[-1:])

    def slopes(self) -> NDArray[np.float64]:
        """Slope of the piece that begins at each point."""
        return self.arrays[3]

    def at(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """The function at ``x``."""
        _, xs, ys, slopes = self.arrays
        piece = np.clip(np.searchsorted(xs, x, side="right") - 1, 0, None)
        with np.errstate(over="ignore"):  # far outside the points
            return np.asarray(ys[piece] + (x - xs[piece]) * slopes[piece])

    def inverse(self) -> Table:
        """The function that leads from y back to x."""
        step = 1 if self.y[0] < self.y[-1] else -1
        return Table(self.y[::step], self.x[::step])


@dataclass(frozen=True, slots=True)
class Scaling:
    """Normalisation of one branch: ``(function(value) - shift) * scale``, or a table.

    Parameters
    ----------
    shift, scale : float
        Of the function's value.
    low, high : float
        The extremes in the specs; values outside are counted.
    encoded_low, encoded_high : float
        Between which the values in the specs lie once they are encoded.
    transform : str
        Name of the function, one of `FUNCTIONS`; ``identity`` for the value itself.
    table : Table or None
        Used instead of transform, shift and scale.
    clip : bool
        Move values outside ``low`` and ``high`` to the nearer of them, instead of passing them on.
    about : str
        What people are told of it, when it follows from the specs by `automatic`.
    absent : float or None
        A value that is encoded as missing, such as a placeholder.
    is_alone : bool
        No other value in the specs is missing, so that what is missing decodes to ``absent``.
    """

    shift: float
    scale: float
    low: float
    high: float
    encoded_low: float = 0.0
    encoded_high: float = 1.0
    transform: str = "identity"
    table: Table | None = None
    clip: bool = False
    about: str = ""
    absent: float | None = None
    is_alone: bool = False

    @property
    def function(self) -> Function | None:
        """What is taken of a value first, if anything."""
        return FUNCTIONS.get(self.transform)

    @property
    def filler(self) -> float:
        """What a missing value decodes to: NaN, or the placeholder if there is nothing else."""
        return math.nan if self.absent is None or not self.is_alone else self.absent

    def is_missing(self, values: NDArray[Any]) -> NDArray[np.bool_]:
        """True where a value has no number to be encoded as, though it is no placeholder."""
        finite = np.isfinite(values)
        if self.function is not None:
            finite &= values > self.function.above
        return np.asarray(~finite)

    def restore(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """The values that were encoded as ``x``."""
        if self.table is not None:
            return self.table.inverse().at(x)
        with np.errstate(over="ignore"):  # of what no value is encoded as
            values = x / self.scale + self.shift
        return values if self.function is None else self.function.inverse(values)


def scaling_of(specs: BranchSpecs, how: Any) -> Scaling:
    """Scaling of a branch.

    Parameters
    ----------
    specs : BranchSpecs
        Statistics of the branch.
    how : str or mapping
        One of `NAMES`; or ``{"shift": …, "scale": …}``, or ``{"x": […], "y": […]}`` for a table,
        either of which may have words ``about`` it, and a value that is ``missing``.

    Raises
    ------
    EncodeError
        When ``how`` is none of these, the specs lack what it needs, or an encoded value does not
        fit into float32.
    """
    low, high = specs.min, specs.max
    if how == "auto":
        how = automatic(specs)
    if isinstance(how, Mapping):
        scaling = _from_numbers(specs.branch.name, how, low or 0.0, high or 0.0)
        is_alone = specs.moments.num_values == specs.moments.num_finite
        scaling = replace(scaling, is_alone=is_alone and scaling.absent is not None)
    elif how not in NAMES:
        raise EncodeError(
            f"normalisation is {how!r}; expected one of {', '.join(NAMES)}, shift and scale, or "
            "x and y",
            option="normalisation",
        )
    else:
        scaling = _derived(specs, *parts_of(how))
    if low is None or high is None:  # never had a finite value
        return scaling
    for end, value in ((low, scaling.encoded_low), (high, scaling.encoded_high)):
        if not abs(value) < LARGEST:
            raise EncodeError(
                f"branch {specs.branch.name!r} goes from {low:.6g} to {high:.6g}: with {how} "
                f"normalisation {end:.6g} does not fit into float32; exclude the branch, or its "
                "files' placeholder values",
                branch=specs.branch.name,
            )
    return scaling


def _derived(specs: BranchSpecs, function: Function | None, formula: Scale) -> Scaling:
    transform = "identity" if function is None else function.name
    moments = specs.moments if function is None else specs.transformed.get(transform)
    name = specs.branch.name
    if moments is None:
        raise EncodeError(
            f"the specs hold no statistics of the {transform} of branch {name!r}; measure again "
            "with this normalisation",
            branch=name,
        )
    if moments.min is None or moments.max is None or specs.min is None or specs.max is None:
        # No value can be encoded. One that comes later is outside, and clipped to what has one.
        end = 0.0 if function is None else max(0.0, function.above + 1.0)
        return Scaling(0.0, 1.0, end, end, 0.0, 0.0, transform)
    shift, spread = moments.min, 1.0
    if moments.min != moments.max or formula is unscaled:
        shift, spread = map(
            float, formula(moments.min, moments.max, moments, lambda: _quartiles(specs, function))
        )
    usable = math.isfinite(spread) and spread > 0 and math.isfinite(1.0 / spread)
    scale = 1.0 / spread if usable else 1.0
    first, last = (moments.min - shift) * scale, (moments.max - shift) * scale
    return Scaling(shift, scale, specs.min, specs.max, first, last, transform)


def _quartiles(specs: BranchSpecs, function: Function | None) -> list[float]:
    """Quartiles of the function's values: an ascending function keeps the order of values."""
    fractions = [0.25, 0.5, 0.75]
    if function is None:
        return specs.quantiles(fractions)
    if math.isinf(function.above):
        return list(values_of(function.code, np.array(specs.quantiles(fractions))))
    values = specs.drawn.astype(np.float64)
    usable = values[np.isfinite(values) & (values > function.above)]
    if usable.size == 0:
        raise EncodeError(
            f"no value above {function.above:g} of branch {specs.branch.name!r} was drawn; its "
            f"{function.name} has no quartiles",
            branch=specs.branch.name,
        )
    quartiles = np.quantile(usable, fractions, method="inverted_cdf")
    return list(values_of(function.code, quartiles))


def require_usable(name: str, how: Mapping[str, Any]) -> None:
    """Raise an EncodeError unless the numbers of a normalisation can be used."""
    _from_numbers(name, how, 0.0, 0.0)


def _from_numbers(name: str, how: Mapping[str, Any], low: float, high: float) -> Scaling:
    table: Table | None = None
    about = how.get("about", "")
    absent: float | None = None
    try:
        if how.get("missing") is not None:
            absent = float(how["missing"])
        if how.keys() - {"about", "missing"} == {*TABLE}:
            table = Table(tuple(map(float, how["x"])), tuple(map(float, how["y"])))
            shift, scale = 0.0, 1.0
            problem = _problem(table)
            first, last = 0.0, 0.0
            if problem is None:
                first, last = sorted(table.at(np.array([low, high])).tolist())
        else:
            shift, scale = float(how["shift"]), float(how["scale"])
            first, last = sorted(((low - shift) * scale, (high - shift) * scale))
            usable = math.isfinite(shift) and math.isfinite(scale) and scale != 0
            problem = None if usable else "shift and scale are finite, and scale is not 0"
    except (KeyError, TypeError, ValueError, IndexError) as error:
        problem = f"expected numbers for shift and scale, or lists of them for x and y ({error!r})"
    if problem is None and absent is not None and not math.isfinite(absent):
        problem = "what is missing is a finite number"
    if problem is not None:
        raise EncodeError(
            f"normalisation of {name!r}: {problem}",
            branch=name,
            option="normalisation",
            pattern=name,
        )
    return Scaling(
        shift, scale, low, high, first, last, table=table, about=str(about), absent=absent
    )


def _problem(table: Table) -> str | None:
    """Why a table cannot be used."""
    if len(table.x) != len(table.y) or len(table.x) < 2:
        return f"{len(table.x)} x and {len(table.y)} y; a table has at least two of each"
    if not all(map(math.isfinite, (*table.x, *table.y))):
        return "x and y of a table are finite"
    if not all(b > a for a, b in pairwise(table.x)):
        return "the x of a table ascend, each larger than the one before"
    ascends, descends = ([sign * b > sign * a for a, b in pairwise(table.y)] for sign in (1, -1))
    if not (all(ascends) or all(descends)):
        return "the y of a table ascend or descend, each different from the one before"
    if not np.isfinite((table.slopes(), table.inverse().slopes())).all():
        return "two points of a table are too close to each other"
    return None
