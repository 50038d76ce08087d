"""Finds, ships and builds the user's network."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlaas4hep_dask.errors import CodeError, ModelError, unknown_keyword
from mlaas4hep_dask.train.code import code_named
from mlaas4hep_dask.usercode import RAISED, UserCode, limited

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

    def build(self, shape: int | tuple[int, ...], num_outputs: int = 1) -> torch.nn.Module:
        """The network for rows or images, as the callable makes it.

        The callable is given the number of columns of rows, or (channels, ny, nx) of images. One
        with a parameter ``num_outputs`` is told how many numbers to give per event. Lazy modules
        of torch get their shapes.

        Raises
        ------
        ModelError
            When the callable fails or does not return a module.
        """
        import torch

        shape = (shape,) if isinstance(shape, int) else shape
        size = shape[0] if len(shape) == 1 else shape
        try:
            factory = self.code.load()
        except CodeError as error:
            raise ModelError(f"model {error.message}", **error.facts) from error
        if wrong := unknown_keyword(factory, self.kwargs):
            raise self.error(f"{wrong} (model.kwargs)")
        try:
            with limited():
                network = factory(size, **self._sizes(factory, num_outputs), **self.kwargs)
        except RAISED as error:  # whatever the user's code raises
            raise self.error(f"failed for {described(shape)}", error) from error
        if not isinstance(network, torch.nn.Module):
            raise self.error(f"returned {type(network).__name__}, expected torch.nn.Module")
        self._shape_lazy(network, shape)
        return network

    def _sizes(self, factory: Callable[..., Any], num_outputs: int) -> dict[str, int]:
        parameters = inspect.signature(factory).parameters
        if "num_outputs" in self.kwargs or "num_outputs" not in parameters:
            return {}
        return {"num_outputs": num_outputs}

    def _shape_lazy(self, network: torch.nn.Module, shape: tuple[int, ...]) -> None:
        """Let lazy modules, which know their shapes once they are called, see rows of zeros."""
        import torch
        from torch.nn.parameter import is_lazy

        if not any(map(is_lazy, (*network.parameters(), *network.buffers()))):
            return
        from mlaas4hep_dask.export.call import call_of

        x = torch.zeros(2, *shape)
        was_training = network.training
        network.eval()
        try:
            with torch.no_grad():
                call_of(network)(x, x > 0)
        except RAISED as error:  # whatever the user's code raises
            raise self.error(f"does not accept {described(shape)}", error) from error
        network.train(was_training)

    def error(self, what: str, cause: BaseException | None = None) -> ModelError:
        """The error that says what is wrong with this model, and where in the user's code."""
        return ModelError(f"model {self.code.message(what, cause)}", callable=self.reference)


def described(shape: tuple[int, ...]) -> str:
    """Rows or images of a shape, in words."""
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
    code = code_named("model.callable", reference, resolve=resolve, where=where, values=kwargs)
    return ModelSource(code, dict(kwargs))
