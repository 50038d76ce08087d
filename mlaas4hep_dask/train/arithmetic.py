"""In which arithmetic a network learns: torch's autocast, and the scale of losses for 16 bits."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from mlaas4hep_dask.errors import ModelError, shown


class Arithmetic:
    """How a network is called while it learns, and its gradients are kept from vanishing.

    Parameters
    ----------
    precision : {"float32", "bfloat16", "float16"}
        What products are computed in. Parameters, outputs and losses are of 32 bits in all three.
    device : str
        torch's name of what computes.

    Attributes
    ----------
    scaler : torch.amp.GradScaler or None
        What scales losses so that gradients do not vanish in float16.

    Raises
    ------
    ModelError
        When the device has no such arithmetic.
    """

    def __init__(self, precision: str = "float32", device: str = "cpu") -> None:
        self._precision, self._device = precision, device
        self._is_lower = precision != "float32"
        self.scaler: Any = None
        if precision == "float16":
            self.scaler = torch.amp.GradScaler(device)
        if self._is_lower:
            self._try()

    def cast(self) -> AbstractContextManager[Any]:
        """In which a network is called that learns."""
        if not self._is_lower:
            return nullcontext()
        return torch.autocast(self._device, dtype=getattr(torch, self._precision))

    def restored(self, outputs: torch.Tensor) -> torch.Tensor:
        """The outputs of a network, as the loss takes them."""
        return outputs.float() if self._is_lower else outputs

    def _try(self) -> None:
        weight = torch.ones(1, 2, device=self._device, requires_grad=True)
        try:
            with self.cast():
                outputs = torch.nn.functional.linear(torch.ones(3, 2, device=self._device), weight)
            outputs.float().sum().backward()  # type: ignore[no-untyped-call]
        except (RuntimeError, TypeError, ValueError) as error:
            raise ModelError(
                f"training.precision: {self._precision} does not work on this {self._device} "
                f"({shown(str(error))}); write bfloat16 or float32",
                precision=self._precision,
            ) from error
