"""Specs of one branch and counts of one sample."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlaas4hep_dask.errors import SpecsError
from mlaas4hep_dask.events.events import Branch
from mlaas4hep_dask.specs.moments import EMPTY, Moments

FLAT = ""  # the group of the flat branches among the collections


def group_of(branch: Branch) -> str:
    """The branches that are drawn together: those of a collection, or the flat ones."""
    return FLAT if branch.collection is None else branch.collection


@dataclass(frozen=True, slots=True, eq=False)
class BranchSpecs:
    """Statistics of one branch.

    Parameters
    ----------
    branch : Branch
        Name, kind, dtype, collection and unit.
    moments : Moments
        Counts of values, NaN and infinities; extremes, mean and squared deviations of the
        finite values.
    drawn : ndarray, shape (drawn,)
        Values of the branch that were drawn for quantiles, in the branch's dtype.
    transformed : mapping of str to Moments
        Moments of functions of the values, by name, for a branch that is encoded by one; see
        `formulas`. Values without a value of the function count as NaN.
    """

    branch: Branch
    moments: Moments = EMPTY
    drawn: NDArray[Any] = field(default_factory=lambda: np.zeros(0, np.float64))
    transformed: Mapping[str, Moments] = field(default_factory=dict)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, BranchSpecs)
            and (self.branch, self.moments) == (other.branch, other.moments)
            and self.transformed == other.transformed
            and self.drawn.dtype == other.drawn.dtype
            and self.drawn.tobytes() == other.drawn.tobytes()  # NaN equals NaN
        )

    __hash__ = None  # type: ignore[assignment]

    @property
    def group(self) -> str:
        """The group that it is drawn with; see `group_of`."""
        return group_of(self.branch)

    @property
    def min(self) -> float | None:
        """Smallest finite value, or None when there is none."""
        return self.moments.min

    @property
    def max(self) -> float | None:
        """Largest finite value, or None when there is none."""
        return self.moments.max

    @property
    def mean(self) -> float | None:
        """Mean of the finite values, or None when there is none."""
        return self.moments.mean if self.moments.num_finite else None

    @property
    def variance(self) -> float | None:
        """Population variance of the finite values, or None when there is none."""
        count = self.moments.num_finite
        return self.moments.squares / count if count else None

    @property
    def is_constant(self) -> bool:
        """True when all finite values are equal."""
        return self.min is not None and self.min == self.max

    def quantile(self, q: float) -> float:
        """The value below which the fraction ``q`` of the finite values lies.

        Exact when every value was drawn, else with the error `rank_error`; the same for the
        same data, however these were cut into partitions and in whatever order they merged.

        Raises
        ------
        SpecsError
            When the branch has no finite value, or none was drawn.
        """
        return self.quantiles([q])[0]

    def quantiles(self, q: Sequence[float]) -> list[float]:
        """The `quantile` of each fraction in ``q``."""
        if self.min is None or self.max is None:
            raise SpecsError(
                f"branch {self.branch.name!r} has no finite value and so no quantiles",
                branch=self.branch.name,
            )
        values = self.finite_drawn()
        if values.size == 0:
            raise SpecsError(
                f"the specs hold no draw of branch {self.branch.name!r}, and so no quantiles; "
                "measure again",
                branch=self.branch.name,
            )
        inner = np.quantile(values, q, method="inverted_cdf")  # a value of the data
        ends = {0.0: self.min, 1.0: self.max}
        return [ends.get(a, float(value)) for a, value in zip(q, inner, strict=True)]

    def rank_error(self, q: float = 0.5) -> float:
        """The standard error, in rank, of the quantile ``q``; largest for the median.

        It is that of a draw without replacement; 0 when every value was drawn, NaN when none.
        """
        num_drawn, num_finite = self.finite_drawn().size, self.moments.num_finite
        if num_drawn == 0:
            return math.nan
        left_out = max(num_finite - num_drawn, 0) / max(num_finite - 1, 1)
        return math.sqrt(q * (1.0 - q) / num_drawn * left_out)

    def finite_drawn(self) -> NDArray[np.float64]:
        """The finite ones among the drawn values, in no order."""
        values = self.drawn.astype(np.float64)
        return values[np.isfinite(values)]
