"""Regression: one or more numbers of an event, learned in units of their spread."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from mlaas4hep_dask.errors import DataError, EncodeError
from mlaas4hep_dask.journal.text import four_digits
from mlaas4hep_dask.objective.classification import BRANCH_GIVES, NOTHING, labels_not_wanted
from mlaas4hep_dask.objective.objective import (
    Fault,
    Objective,
    Selected,
    Spread,
    plain,
    short,
)

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from mlaas4hep_dask.objective.objective import Tally

SINGLE = 24  # bits of a number of single precision
COARSE = 0.01  # of a standard deviation, in which targets may be rounded
METRICS = (("rmse", "RMSE"), ("mae", "MAE"), ("bias", "bias"))


@dataclass(frozen=True)
class Regression(Objective):
    """The targets that branches or expressions give.

    Parameters
    ----------
    shifts, scales : tuple of float
        For each target, where the network gives ``(value - shift) * scale``; empty before the
        selected events are measured.
    """

    shifts: tuple[float, ...] = ()
    scales: tuple[float, ...] = ()

    word = "regression"
    meaning = "one or more numbers"
    kind = "regression"
    score = "values"
    score_meaning = "predicted values of the targets"
    names_key = "targets"
    expected = "targets with mean 0 and variance 1, of which half are negative"
    rounding = 1e-6
    usual_loss = "mse"
    more_is_better = ("r2",)
    headline = ("r2", "R²")
    title = "Residuals of the test set"
    link = "Residuals"
    limits = "The values are those that are likely in the mixture of samples above."

    @classmethod
    def target_faults(cls, branch: Sequence[str], classes: Sequence[str]) -> list[Fault]:
        """As `Objective.target_faults`."""
        faults = [] if branch else [("branch", "missing: a regression needs what to predict")]
        return faults + ([("classes", "a regression has no classes")] if classes else [])

    @classmethod
    def label_faults(
        cls, labels: Sequence[int | None], branch: Sequence[str], classes: Sequence[str]
    ) -> list[Fault]:
        """As `Objective.label_faults`."""
        del branch, classes
        return labels_not_wanted(labels, BRANCH_GIVES)

    @classmethod
    def names_of(
        cls, labels: Mapping[str, int | None], branch: Sequence[str], classes: Sequence[str]
    ) -> tuple[str, ...]:
        """The branches and expressions."""
        del labels, classes
        return tuple(branch)

    @property
    def y_tail(self) -> tuple[int, ...]:
        """All targets."""
        return (len(self.names),)

    def fit_for(self, values: NDArray[np.float64]) -> tuple[NDArray[np.bool_], str]:
        """As `Objective.fit_for`."""
        import numpy as np

        with np.errstate(over="ignore"):
            return np.isfinite(values.astype(np.float32)), "a finite number of 32 bits"

    def fitted(self, selected: Selected) -> Regression:
        """As `Objective.fitted`: every target is brought to mean 0 and variance 1."""
        shifts, scales = [], []
        for name in self.names:
            spread = selected.targets[name]
            is_usable = spread.std > 0 and math.isfinite(1 / spread.std)
            if spread.min == spread.max or not is_usable:
                raise DataError(
                    f"target.branch {name!r} is {spread.min} in every selected event: {NOTHING}",
                    branch=name,
                )
            _require_precision(name, spread)
            # Nine digits: means differ in the last bits with the order of merging.
            shifts.append(float(f"{spread.mean:.9g}"))
            scales.append(1 / float(f"{spread.std:.9g}"))
        return replace(self, shifts=tuple(shifts), scales=tuple(scales))

    def unfitted(self, columns: tuple[str, ...]) -> Regression:
        """As `Objective.unfitted`: the targets as they are."""
        del columns
        number = len(self.names)
        return replace(self, shifts=(0.0,) * number, scales=(1.0,) * number)

    @property
    def units(self) -> tuple[float, ...]:
        """As `Objective.units`."""
        return tuple(1 / scale for scale in self.scales) or (1.0,)

    def targets_of(self) -> Callable[[Any], Any]:
        """Targets in units of their spread."""
        import torch

        shift = torch.tensor(self.shifts, dtype=torch.float32)
        scale = torch.tensor(self.scales, dtype=torch.float32)
        return lambda y: (y - shift) * scale

    def tally(self, samples: Sequence[str] = ()) -> Tally:
        """As `Objective.tally`."""
        from mlaas4hep_dask.objective.arithmetic.regression import RegressionTally

        del samples
        return RegressionTally(self.names, self.shifts, self.scales)

    def activation(self) -> torch.nn.Module:
        """As `Objective.activation`."""
        from mlaas4hep_dask.objective.arithmetic.regression import Unscale

        return Unscale(self.kind, self.num_outputs, self.shifts, self.scales)

    @property
    def scored(self) -> tuple[str, ...]:
        """The targets."""
        return self.names

    @property
    def score_names(self) -> tuple[str, ...]:
        """``predicted_<target>``, so that the target itself may stand beside it."""
        return tuple(f"predicted_{plain(name)}" for name in self.names)

    def as_json(self) -> dict[str, Any]:
        """As `Objective.as_json`, with shifts and scales."""
        return {**super().as_json(), "shifts": list(self.shifts), "scales": list(self.scales)}

    @classmethod
    def from_json(cls, output: Mapping[str, Any]) -> Regression:
        """As `Objective.from_json`."""
        unscaled = super().from_json(output)
        shifts: Any = output.get("shifts")
        scales: Any = output.get("scales")
        for numbers in (shifts, scales):
            if not isinstance(numbers, list) or len(numbers) != len(unscaled.names):
                raise EncodeError("output gives no shift and scale for every target")
        are_usable = all(map(_is_usable, [*shifts, *scales]))
        if not are_usable or not all(scale > 0 for scale in scales):
            raise EncodeError("output gives no usable shift and scale for every target")
        return replace(unscaled, shifts=tuple(shifts), scales=tuple(scales))

    def metric_rows(self, test: Mapping[str, Any]) -> list[tuple[str, str]]:
        """As `Objective.metric_rows`."""
        rows = [("R²", four_digits(test.get("r2")))]
        for name, metrics in (test.get("targets") or {}).items():
            cells = [f"{title} {short(metrics.get(key))}" for key, title in METRICS]
            rows.append((name, ", ".join(cells)))
        return rows

    def purpose(self, branch: Sequence[str], loss: str) -> str:
        """As `Objective.purpose`."""
        targets = ", ".join(f"`{text}`" for text in branch)
        return f"Predicts {targets}, in the units of the files ({loss} loss)."


def _require_precision(name: str, spread: Spread) -> None:
    """Raise a DataError when single precision, of targets and scores, rounds the spread away."""
    largest = max(abs(spread.min or 0.0), abs(spread.max or 0.0))
    step = 2.0 ** (math.frexp(largest)[1] - SINGLE)
    if step > COARSE * spread.std:
        raise DataError(
            f"target.branch {name!r} is {spread.mean:.9g} with a standard deviation of "
            f"{spread.std:.3g}, and numbers of 32 bits of this size are {step:.3g} apart; give the "
            f"difference from a number near, such as {name} - {spread.mean:.9g}",
            branch=name,
        )


def _is_usable(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
