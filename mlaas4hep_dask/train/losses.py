"""The loss of a batch: the sum over its events of weight times loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch.nn.functional import (
    binary_cross_entropy_with_logits,
    cross_entropy,
    huber_loss,
    mse_loss,
)

from mlaas4hep_dask.encode.outputs import Outputs
from mlaas4hep_dask.export.activation import reconstruction_error

RegressionLoss = Literal["mse", "huber"]
Loss = Callable[[torch.Tensor, Any, torch.Tensor], torch.Tensor]


def loss_of(outputs: Outputs, regression: RegressionLoss = "mse") -> Loss:
    """The loss that fits the outputs, as a function of (output, y, w).

    ``output`` is what the network gives, float32 (events, outputs) or (events,) of two classes;
    ``y`` holds labels, float32 (events,), or targets, float32 (events, targets); ``w`` float32
    (events,). Two classes have the binary cross-entropy, more the cross-entropy of the softmax. A
    regression has the mean over its targets of the squared or Huber's loss (Huber 1964, with a
    threshold of 1), each target in units of its standard deviation. For a reconstruction ``y`` is
    the pair of rows and missing mask, and the loss the mean over the values of an event that are
    present of the squared difference.
    """
    if outputs.kind == "reconstruction":
        return _reconstruction
    if outputs.kind == "binary":
        return _binary
    if outputs.kind == "classes":
        return _classes
    shift = torch.tensor(outputs.shifts, dtype=torch.float32)
    scale = torch.tensor(outputs.scales, dtype=torch.float32)
    pointwise = mse_loss if regression == "mse" else huber_loss

    def of_numbers(output: torch.Tensor, y: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        losses = pointwise(output, (y - shift) * scale, reduction="none")
        return losses.mean(dim=1) @ w

    return of_numbers


def _binary(output: torch.Tensor, y: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    return binary_cross_entropy_with_logits(output, y, weight=w, reduction="sum")


def _classes(output: torch.Tensor, y: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    return cross_entropy(output, y.long(), reduction="none") @ w


def _reconstruction(
    output: torch.Tensor, rows: tuple[torch.Tensor, torch.Tensor], w: torch.Tensor
) -> torch.Tensor:
    return reconstruction_error(output, *rows) @ w
