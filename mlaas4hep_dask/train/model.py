"""Finds, ships and builds the user's network."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlaas4hep_dask.errors import CodeError, ModelError, unknown_keyword
from mlaas4hep_dask.usercode import UserCode, find_code

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class ModelSource:
    """A network's factory in a form that reaches workers without the user's folder.

    Parameters
    ----------
    code : UserCode
        The factory with all that it consists of.
    kwargs : mapping
        Keyword arguments of the callable.
    """

    code: UserCode
    kwargs: Mapping[str, Any]

    @property
    def reference(self) -> str:
        """``module:callable`` as in dataset.yaml."""
        return self.code.reference

    def digest(self) -> str:
        """The sha256, in hex, of the code and all that it consists of."""
        return self.code.digest

    def build(self, shape: int | tuple[int, ...], num_outputs: int = 1) -> torch.nn.Module:
        """The network for rows or images, tried on three events.

        The callable is given the number of columns of rows, or (channels, ny, nx) of images.

        A callable with a parameter ``num_outputs`` is told how many numbers to give per event.

        Raises
        ------
        ModelError
            When the callable fails, does not return a module, or the module does not give
            ``num_outputs`` finite numbers per event.
        """
        import torch

        shape = (shape,) if isinstance(shape, int) else shape
        told = shape[0] if len(shape) == 1 else shape
        try:
            factory = self.code.load()
        except CodeError as error:
            raise ModelError(f"model {error.message}", **error.facts) from error
        if wrong := unknown_keyword(factory, self.kwargs):
            raise self._error(f"{wrong} (model.kwargs)")
        try:
            network = factory(told, **self._told(factory, num_outputs), **self.kwargs)
        except Exception as error:  # whatever the user's code raises
            raise self._error(f"failed for {_described(shape)}", error) from error
        if not isinstance(network, torch.nn.Module):
            raise self._error(f"returned {type(network).__name__}, expected torch.nn.Module")
        self._try(network, shape, num_outputs)
        return network

    def _told(self, factory: Callable[..., Any], num_outputs: int) -> dict[str, int]:
        parameters = inspect.signature(factory).parameters
        if "num_outputs" in self.kwargs or "num_outputs" not in parameters:
            return {}
        return {"num_outputs": num_outputs}

    def _try(self, network: torch.nn.Module, row_shape: tuple[int, ...], num_outputs: int) -> None:
        import torch

        from mlaas4hep_dask.export.torchscript import takes_missing

        x = torch.zeros(3, *row_shape)
        inputs = (x, x > 0) if takes_missing(network) else (x,)
        was_training = network.training
        try:
            with torch.no_grad():
                network.train()
                network(*inputs)
                network.eval()
                logits = network(*inputs)
        except Exception as error:  # whatever the user's code raises
            raise self._error(f"does not accept {_described(row_shape)}", error) from error
        network.train(was_training)
        shape = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        if shape != (3, num_outputs) and (num_outputs > 1 or shape != (3,)):
            expected = "one number per event"
            if num_outputs > 1:
                expected = f"(3, {num_outputs}): a callable may take num_outputs to know it"
                if row_shape == (num_outputs,):
                    expected += "; to be reconstructed, a row is as wide as the input"
            raise self._error(f"gives {shape} for 3 events, expected {expected}")
        if not torch.isfinite(logits).all():
            raise self._error("gives values that are not finite for events of zeros")

    def _error(self, what: str, cause: Exception | None = None) -> ModelError:
        reason = f" ({type(cause).__name__}: {cause})" if cause is not None else ""
        return ModelError(f"model {self.reference!r} {what}{reason}", callable=self.reference)


def _described(shape: tuple[int, ...]) -> str:
    return f"rows of {shape[0]} columns" if len(shape) == 1 else f"images of shape {shape}"


def find_model(
    reference: str, kwargs: Mapping[str, Any], *, resolve: Callable[[str], Path], where: str
) -> ModelSource:
    """The source of a model, checked as far as possible without running it.

    Parameters
    ----------
    reference : str
        ``module:callable`` or ``path/to/file.py:callable``.
    kwargs : mapping
        Keyword arguments of the callable.
    resolve : callable
        Makes a relative path absolute.
    where : str
        Place in dataset.yaml, for errors.

    Raises
    ------
    ModelError
        When there is no such file, module or callable; names the nearest.
    """
    try:
        code = find_code(reference, resolve=resolve, values=kwargs)
    except CodeError as error:
        raise ModelError(f"{where}: model.callable: {error.message}", **error.facts) from error
    return ModelSource(code, dict(kwargs))
