"""What values a network can give at all, which its last layer may bound."""

from __future__ import annotations

import time

import torch

from mlaas4hep_dask.export.call import Call
from mlaas4hep_dask.objective import Objective

FACTOR = 1000.0  # on rows, to see whether outputs have bounds
NEAR = 1e-3  # to 0 or 1, as a Sigmoid is at these
FAR = 3.0  # spreads of a target, or a logit, that a network without bounds reaches
STEPS = 40
STEP = 0.1  # of each parameter
EVENTS = 64
LONG = 10.0  # seconds after which nothing is said


def bounds(
    network: torch.nn.Module,
    call: Call,
    rows: tuple[torch.Tensor, torch.Tensor],
    outputs: torch.Tensor,
    objective: Objective,
) -> list[str]:
    """What to say of outputs that look like probabilities, or cannot be what they should be.

    The parameters of the network are changed, and brought back.

    Parameters
    ----------
    network : torch.nn.Module
        The network, in eval mode.
    call : callable
        How it is called.
    rows : tuple of Tensor
        Rows of real events, shape (events, …), and their missing mask.
    outputs : Tensor
        What it gives for them.
    objective : Objective
        What it learns to give.
    """
    x, missing = rows
    if objective.gives_rows and float(x.min()) >= 0:
        return []
    with torch.no_grad():
        low, high = _at_extremes(call, x, missing, outputs)
    of_events = f"for any of {len(x):,} events"
    if low >= 0 and high <= 1 + NEAR and (low < NEAR or high > 1 - NEAR):
        return [_text(f"below 0 or above 1 {of_events}", "a Sigmoid or Softmax", objective)]
    if low == 0:
        above = " or above 1" * (high <= 1 + NEAR)
        return [_text(f"below 0{above} {of_events}", "a ReLU", objective)]
    reached = _reached(network, call, x[:EVENTS], missing[:EVENTS])
    if reached is None:
        return []
    # 1,000 times the rows reach a side as well as steps do, and steps that fail reach none.
    low, high = min(low, reached[0]), max(high, reached[1])
    of_events += ", whatever it learned in a trial"
    if low > -1 - NEAR and high < 1 + NEAR and low < 0 < high:
        if objective.gives_rows and float(x.abs().max()) <= 1:
            return []
        return [_text(f"below -1 or above 1 {of_events}", "a Tanh", objective)]
    if objective.num_outputs > 1 and objective.has_classes:
        return []  # of which the differences alone count
    if low >= 0:
        return [_text(f"below 0 {of_events}", "abs(), a square or a Softplus", objective)]
    if high <= 0:
        return [_text(f"above 0 {of_events}", "a LogSigmoid or -abs()", objective)]
    return []


def _text(beyond: str, layer: str, objective: Objective) -> str:
    return f"gives no number {beyond}: is its last layer {layer}? Expected is {objective.expected}"


def _at_extremes(
    call: Call, x: torch.Tensor, missing: torch.Tensor, outputs: torch.Tensor
) -> tuple[float, float]:
    """The lowest and highest output for real rows, and for rows of absurd size."""
    rows = (x * FACTOR, x * -FACTOR, torch.randn(x.shape) * FACTOR)
    found = [outputs, *(call(each, missing.clone()).reshape(outputs.shape) for each in rows)]
    return (
        min(float(each.nan_to_num().min()) for each in found),
        max(float(each.nan_to_num().max()) for each in found),
    )


def _reached(
    network: torch.nn.Module, call: Call, x: torch.Tensor, missing: torch.Tensor
) -> tuple[float, float] | None:
    """The lowest and highest output that steps of the parameters reach; None if it takes long.

    Steps go where all outputs fall, or rise: a network of few columns may give numbers of one
    sign by chance, and a last layer with a bound never anything beyond it.
    """
    parameters = [each for each in network.parameters() if each.requires_grad]
    before = [each.detach().clone() for each in parameters]
    began = time.monotonic()
    farthest = []
    for sign in (-1, 1):
        most = -torch.inf
        for _ in range(STEPS):
            outputs = call(x.clone(), missing.clone()) * sign
            most = max(most, float(outputs.detach().nan_to_num(nan=-torch.inf).max()))
            if most > FAR:
                break
            if time.monotonic() - began > LONG:
                return None
            slopes = torch.autograd.grad(outputs.sum(), parameters, allow_unused=True)
            with torch.no_grad():
                for parameter, slope in zip(parameters, slopes, strict=True):
                    if slope is not None:
                        parameter.add_(slope.nan_to_num().sign(), alpha=STEP)
        with torch.no_grad():
            for parameter, value in zip(parameters, before, strict=True):
                parameter.copy_(value)
        farthest.append(sign * most)
    return farthest[0], farthest[1]
