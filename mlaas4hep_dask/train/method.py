"""How a network learns: its loss, its optimiser with a schedule, and what is done to gradients."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from mlaas4hep_dask.errors import CodeError, ModelError, unknown_keyword
from mlaas4hep_dask.train.code import code_named
from mlaas4hep_dask.train.loss import LossSource
from mlaas4hep_dask.usercode import RAISED, UserCode, limited

if TYPE_CHECKING:
    from mlaas4hep_dask.train.warm_start import WarmStart

OPTIMISERS = "torch.optim"
SCHEDULER = "OneCycleLR"  # by default
SCHEDULERS = "torch.optim.lr_scheduler"


class Named(Protocol):
    """A section of dataset.yaml that names a callable."""

    @property
    def callable(self) -> str:
        """A name, or ``module:callable``."""

    @property
    def kwargs(self) -> Mapping[str, Any]:
        """Its keyword arguments."""


@dataclass(frozen=True)
class Piece:
    """A callable of torch's or of a user's own, with its keyword arguments.

    Parameters
    ----------
    what : str
        What it is, in words.
    code : UserCode
        The callable with all that it consists of.
    kwargs : mapping
        Keyword arguments that the user gives.
    """

    what: str
    code: UserCode
    kwargs: Mapping[str, Any]

    @property
    def key(self) -> str:
        """The key of dataset.yaml that names it, such as ``training.hooks.0``."""
        return f"training.{self.what.replace('[', '.').rstrip(']')}"

    def parameters(self) -> Mapping[str, inspect.Parameter]:
        """What the callable takes."""
        return inspect.signature(self._function()).parameters

    def make(self, *first: Any, **known: Any) -> Any:
        """What the callable gives.

        Parameters
        ----------
        first
            Its first argument, if it takes one.
        known
            Further arguments, of which it is given those that it takes and the user does not give.

        Raises
        ------
        ModelError
            When it cannot be imported or fails.
        """
        function = self._function()
        if wrong := unknown_keyword(function, self.kwargs):
            raise self.error(wrong)
        takes = self.parameters()
        more = {name: value for name, value in known.items() if name in takes}
        try:
            with limited():
                return function(*first, **{**more, **self.kwargs})
        except RAISED as error:  # whatever the user's code raises
            raise self.error("failed", error) from error

    def error(self, what: str, cause: BaseException | None = None) -> ModelError:
        """The error that says what is wrong with it, and where in the user's code."""
        text = f"{self.what} {self.code.message(what, cause)}"
        return ModelError(text, callable=self.code.reference, key=self.key)

    def _function(self) -> Callable[..., Any]:
        try:
            return self.code.load()
        except CodeError as error:
            raise ModelError(f"{self.what} {error.message}", key=self.key, **error.facts) from error


@dataclass(frozen=True)
class Method:
    """How a network learns; by default by `torch.optim.AdamW` with the usual loss.

    Parameters
    ----------
    loss : LossSource
        What is made small.
    optimiser : Piece, optional
        Makes an optimiser of a list of parameters.
    scheduler : Piece, optional
        Makes of an optimiser what changes its step size.
    every : {"step", "epoch"}, optional
        After what the scheduler is called; by default after every step if it takes their number
        (``total_steps``), else after every epoch.
    clip_norm : float, optional
        Largest norm of the gradient of all parameters together.
    freeze : tuple of str
        Patterns of the names of parameters that stay as they are.
    ema : float, optional
        Decay of the moving average of parameters which is measured and exported.
    accumulate : int
        Batches of which the gradients are added up before a step is taken.
    precision : {"float32", "bfloat16", "float16"}
        In which products are computed while the network learns.
    hooks : tuple of Piece
        What is told how the training goes; see `mlaas4hep_dask.train.hooks`.
    warm_start : WarmStart, optional
        Parameters with which the network begins.
    """

    loss: LossSource = field(default_factory=LossSource)
    optimiser: Piece | None = None
    scheduler: Piece | None = None
    every: str | None = None
    clip_norm: float | None = None
    freeze: tuple[str, ...] = ()
    ema: float | None = None
    accumulate: int = 1
    precision: str = "float32"
    hooks: tuple[Piece, ...] = ()
    warm_start: WarmStart | None = None

    @property
    def is_usual(self) -> bool:
        """Whether nothing but torch's own parts, as they are, takes the steps."""
        usual = f"{SCHEDULERS}:{SCHEDULER}"
        is_scheduled_so = self.scheduler is None or (
            self.scheduler.code.reference == usual and not self.scheduler.kwargs
        )
        return self.optimiser is None and self.ema is None and is_scheduled_so

    @property
    def codes(self) -> dict[str, UserCode]:
        """The user's code in it, by what it is."""
        pieces = (self.optimiser, self.scheduler, *self.hooks)
        codes = {piece.what: piece.code for piece in pieces if piece is not None}
        return codes if self.loss.code is None else {"loss": self.loss.code, **codes}


def find_piece(
    named: Named | None,
    *,
    what: str,
    home: str,
    resolve: Callable[[str], Path],
    where: str,
) -> Piece | None:
    """A callable of dataset.yaml, checked as far as possible without importing it.

    Parameters
    ----------
    named : Named or None
        The section; a callable without a colon is one of torch's.
    what : str
        The key, which is what it is called in errors.
    home : str
        Torch's module of such callables, for names without a colon.
    resolve : callable
        Makes a relative path absolute.
    where : str
        Place in dataset.yaml, for errors.

    Raises
    ------
    ModelError
        When there is no such file, module or callable; names the nearest.
    """
    if named is None:
        return None
    name = named.callable
    reference = name if ":" in name else f"{home}:{name}"
    kwargs = dict(named.kwargs)
    code = code_named(f"training.{what}", reference, resolve=resolve, where=where, values=kwargs)
    return Piece(what, code, kwargs)
