"""Functions of values, by name: each is one class here, and a branch of `compiled.value_of`.

Neither NumPy nor torch is loaded to know their names.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

FUNCTIONS: dict[str, Function] = {}


class Function(ABC):
    """An ascending function of values; a subclass is known by its name once it is defined.

    ``name`` stands in dataset.yaml, in front of a scale or alone, and in specs, which hold the
    moments of the function's values. ``code`` is what `compiled.value_of` knows it by; it belongs
    to one function for ever. Values that are not above ``above`` have no value of the function:
    they are missing.
    """

    name: ClassVar[str]
    code: ClassVar[int]
    above: ClassVar[float] = -math.inf

    def __init_subclass__(cls) -> None:
        """Make it known under its name."""
        FUNCTIONS[cls.name] = cls()

    @staticmethod
    @abstractmethod
    def in_torch(value: torch.Tensor) -> torch.Tensor:
        """The function of a tensor of float64, as TorchScript that every bundle has in it."""

    @staticmethod
    @abstractmethod
    def inverse(result: NDArray[np.float64]) -> NDArray[Any]:
        """The values that ``result`` is the function of."""


class Log(Function):
    """The natural logarithm."""

    name = "log"
    code = 0
    above = 0.0

    @staticmethod
    def in_torch(value: torch.Tensor) -> torch.Tensor:
        """As `Function.in_torch`."""
        return value.log()

    @staticmethod
    def inverse(result: NDArray[np.float64]) -> NDArray[Any]:
        """As `Function.inverse`."""
        import numpy as np

        return np.exp(result)


class SymLog(Function):
    """The logarithm with a sign: sign(v) log(1 + abs(v))."""

    name = "symlog"
    code = 1

    @staticmethod
    def in_torch(value: torch.Tensor) -> torch.Tensor:
        """As `Function.in_torch`."""
        return value.abs().log1p().copysign(value)

    @staticmethod
    def inverse(result: NDArray[np.float64]) -> NDArray[Any]:
        """As `Function.inverse`."""
        import numpy as np

        return np.copysign(np.expm1(np.abs(result)), result)
