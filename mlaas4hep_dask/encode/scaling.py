"""Scaling: how the values of one branch become numbers near 0, as derived from its specs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from mlaas4hep_dask.encode.automatic import automatic
from mlaas4hep_dask.errors import EncodeError
from mlaas4hep_dask.specs import BranchSpecs
from mlaas4hep_dask.specs.transforms import Transform

LARGEST = 3.4e38  # of float32

Normalisation = Literal["minmax", "standard", "robust", "none"]
HOWS = (
    "auto",
    *get_args(Normalisation),
    *(
        f"{log}{rest}"
        for log in ("log", "symlog")
        for rest in ("", "-minmax", "-standard", "-robust")
    ),
)


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
    """Normalisation of one branch: ``(transform(value) - shift) * scale``, or a table.

    Parameters
    ----------
    shift, scale : float
        Of the transformed value.
    low, high : float
        The extremes in the specs; values outside are counted.
    encoded_low, encoded_high : float
        Between which the values in the specs lie once they are encoded.
    transform : {"identity", "log", "symlog"}
        ``log`` makes 0 and what lies below missing; ``symlog`` is sign(v) log(1 + abs(v)).
    table : Table or None
        Used instead of transform, shift and scale.
    clip : bool
        Move values outside ``low`` and ``high`` to the nearer of them, instead of passing them on.
    about : str
        What people are told of it, when it follows from the specs by `automatic`.
    """

    shift: float
    scale: float
    low: float
    high: float
    encoded_low: float = 0.0
    encoded_high: float = 1.0
    transform: Transform = "identity"
    table: Table | None = None
    clip: bool = False
    about: str = ""

    def is_missing(self, values: NDArray[Any]) -> NDArray[np.bool_]:
        """True where a value has no number to be encoded as."""
        finite = np.isfinite(values)
        if self.transform == "log":
            finite &= values > 0
        return np.asarray(~finite)

    def restore(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """The values that were encoded as ``x``."""
        if self.table is not None:
            return self.table.inverse().at(x)
        with np.errstate(over="ignore"):  # of what no value is encoded as
            values = x / self.scale + self.shift
        if self.transform == "log":
            values = np.exp(values)
        elif self.transform == "symlog":
            values = np.copysign(np.expm1(np.abs(values)), values)
        return values


def scaling_of(specs: BranchSpecs, how: Any) -> Scaling:
    """Scaling of a branch.

    Parameters
    ----------
    specs : BranchSpecs
        Statistics of the branch.
    how : str or mapping
        One of `HOWS`; or ``{"shift": …, "scale": …}``, or ``{"x": […], "y": […]}`` for a table,
        either of which may have words ``about`` it.

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
        scaling = _given(specs.branch.name, how, low or 0.0, high or 0.0)
    elif how not in HOWS:
        raise EncodeError(
            f"normalisation is {how!r}; expected one of {', '.join(HOWS)}, shift and scale, or "
            "x and y",
            option="normalisation",
        )
    else:
        prefix, _, rest = how.rpartition("-")
        if how in ("log", "symlog"):
            prefix, rest = how, "none"
        scaling = _derived(specs, prefix or "identity", rest)
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


def _derived(specs: BranchSpecs, transform: Any, normalisation: str) -> Scaling:
    moments = specs.moments if transform == "identity" else specs.transformed.get(transform)
    name = specs.branch.name
    if moments is None:
        raise EncodeError(
            f"the specs hold no statistics of the {transform} of branch {name!r}; measure again "
            "with this normalisation",
            branch=name,
        )
    if moments.min is None or moments.max is None or specs.min is None or specs.max is None:
        # No value can be encoded. One that comes later is outside, and clipped to a log of 0.
        end = 1.0 if transform == "log" else 0.0
        return Scaling(0.0, 1.0, end, end, 0.0, 0.0, transform)
    shift, spread = 0.0, 1.0
    if normalisation == "none":
        pass
    elif moments.min == moments.max:
        shift = moments.min
    elif normalisation == "minmax":
        shift, spread = moments.min, moments.max - moments.min
    elif normalisation == "standard":
        # Nine digits: means differ in the last bits with the order of merging, and blocks must
        # be equal whatever the partition size. Extremes and quantiles are exact.
        shift = moments.min + float(f"{moments.mean - moments.min:.9g}")
        spread = float(f"{(moments.squares / moments.num_finite) ** 0.5:.9g}")
        spread = spread or moments.max - moments.min  # squares of tiny values are 0
    else:
        first, shift, third = _quartiles(specs, transform)
        spread = third - first
    usable = math.isfinite(spread) and spread > 0 and math.isfinite(1.0 / spread)
    scale = 1.0 / spread if usable else 1.0
    first, last = (moments.min - shift) * scale, (moments.max - shift) * scale
    return Scaling(shift, scale, specs.min, specs.max, first, last, transform)


def _quartiles(specs: BranchSpecs, transform: str) -> list[float]:
    """Quartiles of the transformed values: a monotonic function keeps the order of values."""
    fractions = [0.25, 0.5, 0.75]
    if transform == "identity":
        return specs.quantiles(fractions)
    if transform == "symlog":
        return [math.copysign(math.log1p(abs(q)), q) for q in specs.quantiles(fractions)]
    drawn = specs.drawn.astype(np.float64)
    positive = drawn[np.isfinite(drawn) & (drawn > 0)]
    if positive.size == 0:
        raise EncodeError(
            f"no value above 0 of branch {specs.branch.name!r} was drawn; its log has no quartiles",
            branch=specs.branch.name,
        )
    return [math.log(q) for q in np.quantile(positive, fractions, method="inverted_cdf")]


def require_usable(name: str, how: Mapping[str, Any]) -> None:
    """Raise an EncodeError unless the numbers of a normalisation can be used."""
    _given(name, how, 0.0, 0.0)


def _given(name: str, how: Mapping[str, Any], low: float, high: float) -> Scaling:
    table: Table | None = None
    about = how.get("about", "")
    try:
        if how.keys() - {"about"} == {"x", "y"}:
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
    if problem is not None:
        raise EncodeError(
            f"normalisation of {name!r}: {problem}",
            branch=name,
            option="normalisation",
            pattern=name,
        )
    return Scaling(shift, scale, low, high, first, last, table=table, about=str(about))


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
