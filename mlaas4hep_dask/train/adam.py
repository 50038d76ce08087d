"""Adam on torch's functional form, without the import that torch's optimiser classes need."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch.optim.adam import adam


class Adam:
    """Adam (Kingma and Ba 2015) with the defaults of ``torch.optim.Adam``, in its fused kernel.

    The arithmetic is torch's own. Its optimiser classes import ``torch._dynamo`` when first used,
    which takes 1.1 s in every rank, and spend twice the time per step on bookkeeping.

    Parameters
    ----------
    parameters : iterable of torch.nn.Parameter
        What to optimise; a parameter without a gradient is left as it is.
    lr : float
        Step size.
    """

    def __init__(self, parameters: Iterable[torch.nn.Parameter], *, lr: float) -> None:
        self.parameters = [p for p in parameters if p.requires_grad]
        self.lr = lr
        self._means = [torch.zeros_like(p) for p in self.parameters]
        self._squares = [torch.zeros_like(p) for p in self.parameters]
        self._steps = [torch.zeros((), dtype=torch.float32) for _ in self.parameters]

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    def step(self) -> None:
        """Move every parameter by its gradient."""
        lists: Sequence[list[Any]] = (self.parameters, self._means, self._squares, self._steps)
        if any(parameter.grad is None for parameter in self.parameters):
            rows = [row for row in zip(*lists, strict=True) if row[0].grad is not None]
            if not rows:
                return
            lists = [list(column) for column in zip(*rows, strict=True)]
        parameters, means, squares, steps = lists
        with torch.no_grad():
            adam(
                parameters,
                [parameter.grad for parameter in parameters],
                means,
                squares,
                [],
                steps,
                fused=True,
                amsgrad=False,
                beta1=0.9,
                beta2=0.999,
                lr=self.lr,
                weight_decay=0.0,
                eps=1e-8,
                maximize=False,
            )

    def state_dict(self) -> dict[str, list[torch.Tensor]]:
        """The moments and step numbers, for a checkpoint."""
        return {"means": self._means, "squares": self._squares, "steps": self._steps}

    def load_state_dict(self, state: dict[str, list[torch.Tensor]]) -> None:
        """Take up the moments and step numbers of a checkpoint."""
        own = self.state_dict()
        for name, tensors in own.items():
            for tensor, saved in zip(tensors, state[name], strict=True):
                tensor.copy_(saved)
