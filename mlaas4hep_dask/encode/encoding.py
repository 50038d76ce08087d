"""Encoding: the layout and the normalisation of every branch, as derived from specs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

from mlaas4hep_dask.encode.layout import Layout
from mlaas4hep_dask.errors import EncodeError
from mlaas4hep_dask.specs import Branch, BranchSpecs, Specs

LARGEST = 3.4e38  # of float32

Normalisation = Literal["minmax", "standard"]
OutOfRange = Literal["pass", "clip"]


@dataclass(frozen=True, slots=True)
class Scaling:
    """Normalisation of one branch: ``(value - shift) * scale``.

    ``low`` and ``high`` are the extremes in the specs; values outside are counted.
    """

    shift: float
    scale: float
    low: float
    high: float


@dataclass(frozen=True)
class Encoding:
    """All that `encode` and `decode` need to know.

    Parameters
    ----------
    layout : Layout
        Column of every value.
    scalings : tuple of Scaling
        One for each of ``layout.branches``.
    branches : tuple of Branch
        The same branches with their kind, dtype and collection.
    clip : bool
        Move values outside the specs to the nearer extreme, instead of passing them on.
    """

    layout: Layout
    scalings: tuple[Scaling, ...]
    branches: tuple[Branch, ...]
    clip: bool = False

    @classmethod
    def from_specs(
        cls,
        specs: Specs,
        *,
        normalisation: Normalisation = "minmax",
        max_width: int | None = None,
        out_of_range: OutOfRange = "pass",
    ) -> Encoding:
        """Encoding of the branches in ``specs``.

        Parameters
        ----------
        specs : Specs
            Specs of the whole data set.
        normalisation : {"minmax", "standard"}
            ``minmax`` maps the extremes to 0 and 1, as the published pipeline does (Kuznetsov,
            Giommi, Bonacorsi, Comput. Softw. Big Sci. 2021); ``standard`` maps the mean to 0
            and one standard deviation to 1. A constant branch becomes 0 with either.
        max_width : int, optional
            Largest number of objects kept per collection.
        out_of_range : {"pass", "clip"}
            What happens to values outside the extremes in the specs.

        Raises
        ------
        EncodeError
            When an option has another value, as that of a bundle's manifest may.
        """
        _require(normalisation, Normalisation, option="normalisation")
        _require(out_of_range, OutOfRange, option="out_of_range")
        layout = Layout.from_specs(specs, max_width=max_width)
        entries = [specs.branches[name] for name in layout.branches]
        scalings = tuple(_scaling(entry, normalisation) for entry in entries)
        branches = tuple(entry.branch for entry in entries)
        return cls(layout, scalings, branches, clip=out_of_range == "clip")


def _require(value: str, allowed: Any, *, option: str) -> None:
    if value not in get_args(allowed):
        expected = " or ".join(map(repr, get_args(allowed)))
        raise EncodeError(f"{option} is {value!r}; expected {expected}", option=option)


def _scaling(specs: BranchSpecs, normalisation: Normalisation) -> Scaling:
    if specs.min is None or specs.max is None or specs.mean is None or specs.variance is None:
        return Scaling(shift=0.0, scale=1.0, low=0.0, high=0.0)  # never had a finite value
    if specs.is_constant:
        return Scaling(shift=specs.min, scale=1.0, low=specs.min, high=specs.max)
    if normalisation == "minmax":
        shift, spread = specs.min, specs.max - specs.min
    else:
        # Nine digits: means differ in the last bits with the order of merging, and blocks must
        # be equal whatever the partition size. The extremes are exact.
        shift = specs.min + float(f"{specs.mean - specs.min:.9g}")
        spread = float(f"{specs.variance**0.5:.9g}")
    usable = math.isfinite(spread) and spread > 0 and math.isfinite(1.0 / spread)
    scaling = Scaling(shift, 1.0 / spread if usable else 1.0, specs.min, specs.max)
    for value in (specs.min, specs.max):
        if not abs((value - shift) * scaling.scale) < LARGEST:
            raise EncodeError(
                f"branch {specs.branch.name!r} goes from {specs.min:.6g} to {specs.max:.6g}: with "
                f"{normalisation} normalisation {value:.6g} does not fit into float32; exclude the "
                "branch, or its files' placeholder values",
                branch=specs.branch.name,
            )
    return scaling
