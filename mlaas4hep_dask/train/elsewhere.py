"""Tries a network on the device that it will learn on, before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mlaas4hep_dask.export.call import call_of
from mlaas4hep_dask.objective import Objective
from mlaas4hep_dask.train.arithmetic import Arithmetic
from mlaas4hep_dask.train.given import Given
from mlaas4hep_dask.train.method import Method
from mlaas4hep_dask.train.model import ModelSource
from mlaas4hep_dask.usercode import RAISED


def learn_on(
    device: str,
    model: ModelSource,
    given: Given,
    objective: Objective,
    method: Method,
    events: Sequence[torch.Tensor],
) -> None:
    """Compute the gradients of a new network there; nobody looks at what comes out.

    Parameters
    ----------
    device : str
        As torch calls it.
    model, given
        Builds the network, of what it is given.
    objective, method
        What it learns, and how.
    events : sequence of Tensor
        Rows, missing mask, labels or targets, and weights of real events, on the CPU.

    Raises
    ------
    ModelError
        When the network, the loss or the device fails.
    """
    network = model.build(given).train()
    model.move(network, torch.device(device))
    x, missing, y, w = (each.to(device) for each in events)
    arithmetic = Arithmetic(method.precision, torch.device(device).type)
    with torch.device(device):  # what it consists of is there too
        loss = method.loss.batch_loss(objective)
    try:
        with arithmetic.cast():
            outputs = call_of(network)(x, missing).reshape(len(x), *objective.output_tail)
        truth = (x, missing) if objective.gives_rows else y
        total = loss(arithmetic.restored(outputs), truth, w)
        total.backward()  # type: ignore[no-untyped-call]
    except RAISED as error:  # whatever the user's code raises
        raise model.error(
            f"fails on {device}, where it is to learn (training.device), and not on the CPU; new "
            "tensors belong where its input is: torch.zeros(2, device=x.device)",
            error,
        ) from error
