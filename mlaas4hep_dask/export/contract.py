"""What every network has to keep: one score per event, the same in any company and at any time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from mlaas4hep_dask.errors import ModelError
from mlaas4hep_dask.export.call import Call
from mlaas4hep_dask.objective import Objective

ABSOLUTE = 1e-5  # by which rounding may change a probability
FEW = 60  # events that small batches are made of
LONG = 20  # seconds after which few events have to do for one size
SIZES = (2, 3, 64)  # of batches, beside single events and all at once


@dataclass(frozen=True)
class Difference:
    """How far scores are from those that were expected.

    Parameters
    ----------
    worst : float
        The largest difference.
    num_events : int
        Events that differ by more than rounding explains.
    total : int
        Events compared.
    """

    worst: float
    num_events: int
    total: int

    def __bool__(self) -> bool:
        return self.num_events > 0

    def __str__(self) -> str:
        return f"by up to {self.worst:.3g} on {self.num_events:,} of {self.total:,} events"


def compared(
    outputs: torch.Tensor,
    expected: torch.Tensor,
    x: torch.Tensor,
    objective: Objective,
    *,
    absolute: float = ABSOLUTE,
) -> Difference:
    """How far scores differ by more than rounding explains.

    Rounding grows with the largest value of an event's row, in the unit of a target, and with a
    score that has no bounds.

    Parameters
    ----------
    found, expected : Tensor, shape (events, …)
        Scores.
    x : Tensor of float32, shape (events, …)
        The rows that they are of.
    objective : Objective
        What the scores mean.
    absolute : float
        What rounding may change of a probability.
    """
    total = len(x)
    if total == 0:
        return Difference(0.0, 0, 0)
    outputs, expected = (each.reshape(total, -1).double() for each in (outputs, expected))
    size = x.reshape(total, -1).double().abs().nan_to_num().amax(dim=1, keepdim=True).clamp(min=1)
    unit = torch.tensor(objective.units, dtype=torch.float64)
    allowed = absolute * size * unit + objective.rounding * size * expected.abs()
    allowed = allowed.nan_to_num()
    apart = (outputs - expected).abs()
    same = (outputs == expected) | (outputs.isnan() & expected.isnan())
    apart = torch.where(same, torch.zeros_like(apart), apart)
    differs = ~(apart <= allowed)
    worst = float(apart.nan_to_num(nan=torch.inf).max())
    return Difference(worst, int(differs.any(dim=1).sum()), total)


def outputs_of(
    call: Call,
    x: torch.Tensor,
    missing: torch.Tensor,
    objective: Objective,
    *,
    is_known: bool = False,
) -> torch.Tensor:
    """What a network gives for some events, once it is known to keep to its contract.

    It is asked for few events, for all, for all again, for each alone and for batches.

    Parameters
    ----------
    call : callable
        The network, in eval mode.
    x, missing : Tensor of float32 and of bool, shape (events, …)
        Encoded rows or images, and their missing mask.
    objective : Objective
        What it learns to give.
    is_known : bool
        Whether it has kept to its contract with other parameters: fewer events are asked alone.

    Returns
    -------
    Tensor
        What it gives for all events.

    Raises
    ------
    ModelError
        When it gives another number of values, no floating point numbers or some that are not
        finite; changes its input; or gives an event other values again or in other company.
    """
    width = objective.num_outputs

    def ask(part: slice) -> torch.Tensor:
        rows, mask = x[part].clone(), missing[part].clone()
        outputs = call(rows, mask)
        require_shape(outputs, len(rows), width, is_row=objective.gives_rows)
        _require_fine(outputs)
        if not (torch.equal(rows, x[part]) and torch.equal(mask, missing[part])):
            raise ModelError(
                "changes its input in place, which is what it is compared with and what others "
                "read: write x = x * 2 in place of x.mul_(2), or x = x.clone() first; so do "
                "layers with inplace=True"
            )
        return torch.as_tensor(outputs).detach().reshape(len(rows), -1)

    activation = objective.activation()

    def scores(outputs: torch.Tensor, part: slice) -> torch.Tensor:
        return activation(outputs, x[part], missing[part])  # type: ignore[no-any-return]

    return _steady(ask, scores, x, objective, is_known=is_known)


def scores_of(
    call: Call,
    x: torch.Tensor,
    missing: torch.Tensor,
    objective: Objective,
    *,
    is_finite: bool = True,
) -> torch.Tensor:
    """The scores that a bundle's module gives, once it is known to keep to its contract.

    As `outputs_of`, of scores: probabilities are between 0 and 1, errors are not negative. They
    have to be finite if ``is_finite``.
    """
    width = objective.num_scores

    def ask(part: slice) -> torch.Tensor:
        rows = x[part].clone()
        scores = call(rows, missing[part].clone())
        require_shape(scores, len(rows), width)
        return torch.as_tensor(scores).detach()

    def scores(outputs: torch.Tensor, part: slice) -> torch.Tensor:
        del part
        return outputs

    results = _steady(ask, scores, x, objective, is_finite=is_finite)
    numbers = results[torch.isfinite(results)]
    if not numbers.numel():
        return results
    low, high = float(numbers.min()), float(numbers.max())
    if wrong := objective.wrong_scores(low, high):
        raise ModelError(wrong)
    return results


def require_shape(outputs: Any, num_events: int, width: int, *, is_row: bool = False) -> None:
    """Raise a ModelError unless there are ``width`` floating point numbers for every event."""
    expected = "one number per event"
    if width > 1:
        expected = f"({num_events}, {width}): a callable may take num_outputs to know it"
    if is_row:
        expected = f"({num_events}, {width}): to be reconstructed, a row is as wide as the input"
    if not isinstance(outputs, torch.Tensor):
        raise ModelError(
            f"gives {type(outputs).__name__} for {num_events} events, expected {expected}"
        )
    shape = tuple(outputs.shape)
    flat = width == 1 and not is_row
    # One event's numbers are those of this event, whatever axes were squeezed away.
    is_single = num_events == 1 and outputs.numel() == width
    if shape != (num_events, width) and not (flat and shape == (num_events,)) and not is_single:
        raise ModelError(f"gives {shape} for {num_events} events, expected {expected}")
    if not outputs.dtype.is_floating_point:
        raise ModelError(
            f"gives {str(outputs.dtype).removeprefix('torch.')}, expected floating point numbers"
        )


def _require_fine(outputs: torch.Tensor) -> None:
    digits = torch.finfo(outputs.dtype)
    if digits.eps > torch.finfo(torch.float32).eps:
        raise ModelError(
            f"gives {digits.dtype}, which tells numbers near 1 apart by {digits.eps:.1g}: events "
            "share scores, and get others among other events; end its forward with .float()"
        )


def _in_time(parts: Iterator[torch.Tensor]) -> Iterator[torch.Tensor]:
    """Parts as they come, after a while no more than `FEW`: large networks take long."""
    began = time.monotonic()
    for number, part in enumerate(parts, start=1):
        yield part
        if number >= FEW and time.monotonic() - began > LONG:
            return


def _steady(
    ask: Any,
    scores: Any,
    x: torch.Tensor,
    objective: Objective,
    *,
    is_finite: bool = True,
    is_known: bool = False,
) -> torch.Tensor:
    """What ``ask`` gives for all events, which is the same however it is asked.

    Asking all of a thousand events alone takes most of the time: few will do ``if is_known``.
    """
    total = len(x)
    everything = slice(0, total)
    ask(slice(0, min(3, total)))
    outputs: torch.Tensor = ask(everything)
    failed = int((~torch.isfinite(outputs).reshape(total, -1).all(dim=1)).sum())
    if failed and is_finite:
        raise ModelError(f"gives numbers that are not finite for {failed:,} of {total:,} events")
    expected = scores(outputs, everything)

    def require_again() -> None:
        again = compared(scores(ask(everything), everything), expected, x, objective)
        if again:
            raise ModelError(
                f"gives other scores when it is asked again, {again}: it is random in eval mode "
                "(torch.nn.functional.dropout needs training=self.training), or keeps something "
                "from one call for the next"
            )

    require_again()
    for size in (1, *SIZES):
        some = min(total, FEW) if size in (2, 3) or (size == 1 and is_known) else total
        parts = [slice(start, min(start + size, some)) for start in range(0, some, size)]
        of_parts = torch.cat(list(_in_time(scores(ask(part), part) for part in parts)))
        some = len(of_parts)
        apart = compared(of_parts, expected[:some], x[:some], objective)
        if apart:
            require_again()
            company = "alone" if size == 1 else f"in batches of {size}"
            raise ModelError(
                f"gives an event another score {company} than among {total:,}, {apart}: a served "
                "score would depend on other clients' events. Averages over a batch belong in "
                "training alone, as in torch.nn.BatchNorm1d, or over the values of one event, as "
                "in torch.nn.LayerNorm"
            )
    require_again()
    return outputs
