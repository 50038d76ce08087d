"""Finds, ships and builds the user's network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlaas4hep_dask.errors import CodeError, ModelError, unknown_keyword
from mlaas4hep_dask.train.code import code_named
from mlaas4hep_dask.train.given import Given, arguments_of, declared
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

    def build(self, given: Given | int) -> torch.nn.Module:
        """The network for rows or images, as the callable makes it.

        The callable is given what its parameters are called after, see `arguments_of`, and the
        keyword arguments. Lazy modules of torch get their shapes.

        Parameters
        ----------
        given : Given or int
            What the callable may be given; or the number of columns alone.

        Raises
        ------
        ModelError
            When the callable needs something else, fails or does not return a module.
        """
        import torch

        given = Given((given,)) if isinstance(given, int) else given
        factory = self._load()
        if wrong := unknown_keyword(factory, self.kwargs):
            raise self.error(f"{wrong} (model.kwargs)")
        try:
            positional, keywords = arguments_of(factory, self.kwargs, given)
        except TypeError as error:
            raise self.error(str(error)) from error
        try:
            with limited():
                network = factory(*positional, **keywords, **self.kwargs)
        except RAISED as error:  # whatever the user's code raises
            raise self.error(f"failed for {described(given.row_shape)}", error) from error
        if not isinstance(network, torch.nn.Module):
            raise self.error(f"returned {type(network).__name__}, expected torch.nn.Module")
        self._shape_lazy(network, given.row_shape)
        return network

    def move(self, network: torch.nn.Module, device: torch.device) -> None:
        """Bring a network that this made to a device.

        Raises
        ------
        ModelError
            When it does not go there, or has no room.
        """
        try:
            network.to(device)
        except RAISED as error:  # whatever the user's network, or the device, raises
            raise self.error(f"cannot be brought to {device}", error) from error

    def declares(self) -> frozenset[str]:
        """Which of `given.NAMES` the callable declares.

        Raises
        ------
        ModelError
            When it cannot be imported.
        """
        return declared(self._load(), self.kwargs)

    def _load(self) -> Callable[..., Any]:
        try:
            return self.code.load()
        except CodeError as error:
            raise ModelError(f"model {error.message}", **error.facts) from error

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
