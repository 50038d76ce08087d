"""What the factory of a network may be given, by the names of its parameters."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from mlaas4hep_dask.encode.encoding import Encoding
from mlaas4hep_dask.encode.input_layout import InputLayout, input_layout
from mlaas4hep_dask.errors import did_you_mean, either
from mlaas4hep_dask.objective import Objective
from mlaas4hep_dask.specs import Specs

INPUTS = ("num_columns", "layout", "specs", "image_shape")
NAMES = (*INPUTS, "num_classes", "num_outputs")


@dataclass(frozen=True)
class Given:
    """What a factory may declare as a parameter.

    Parameters
    ----------
    row_shape : tuple of int
        Shape of one event: (columns,), or (channels, ny, nx) of an image.
    num_outputs : int
        Numbers that the network gives for an event.
    num_classes : int
        Classes that it tells apart, 2 of signal and background; 0 where it learns no classes.
    layout : InputLayout, optional
        The columns of rows.
    specs : Specs, optional
        Statistics of the branches.
    """

    row_shape: tuple[int, ...]
    num_outputs: int = 1
    num_classes: int = 0
    layout: InputLayout | None = None
    specs: Specs | None = None

    @classmethod
    def of(
        cls,
        encoding: Encoding,
        objective: Objective,
        specs: Specs | None = None,
        *,
        names: Collection[str] = NAMES,
    ) -> Given:
        """What is known of events that are encoded so, and of what is learned from them.

        Of the layout, which takes time, and the specs, which are large, only what is among the
        names.
        """
        layout = None
        if specs is not None and encoding.image is None and "layout" in names:
            layout = input_layout(encoding, specs)
        num_classes = len(objective.classes)
        specs = specs if "specs" in names else None
        return cls(encoding.row_shape, objective.num_outputs, num_classes, layout, specs)

    @property
    def size(self) -> int | tuple[int, ...]:
        """The number of columns of rows, or the shape of images."""
        return self.row_shape[0] if len(self.row_shape) == 1 else self.row_shape

    def by_name(self) -> dict[str, Any]:
        """What there is, by the name of a parameter."""
        size_name = "num_columns" if len(self.row_shape) == 1 else "image_shape"
        found: dict[str, Any] = {size_name: self.size, "num_outputs": self.num_outputs}
        found |= {"num_classes": self.num_classes} if self.num_classes else {}
        others = {"layout": self.layout, "specs": self.specs}
        return found | {name: value for name, value in others.items() if value is not None}


def declared(factory: Callable[..., Any], kwargs: Mapping[str, Any]) -> frozenset[str]:
    """Which of `NAMES` a factory takes by keyword, and ``kwargs`` do not give."""
    by_keyword = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return frozenset(
        parameter.name
        for parameter in _parameters(factory)
        if parameter.kind in by_keyword and parameter.name in NAMES and parameter.name not in kwargs
    )


def arguments_of(
    factory: Callable[..., Any], kwargs: Mapping[str, Any], given: Given
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments of a factory, beside ``kwargs``.

    It is given what it declares of `NAMES` by keyword. One whose first parameter has another name
    is given the number of columns, or the shape of images, there, unless others tell of the inputs.

    Raises
    ------
    TypeError
        When a parameter without a default is left over; names what may be declared.
    """
    names = declared(factory, kwargs)
    known = given.by_name()
    keywords = {name: known[name] for name in sorted(names) if name in known}
    parameters = _parameters(factory)
    if not parameters:  # C code without a signature, or a function that takes nothing
        return (given.size,), {}
    first = parameters[0]
    positional: tuple[Any, ...] = ()
    kinds = inspect.Parameter
    if first.kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD, kinds.VAR_POSITIONAL):
        is_free = first.name not in kwargs and first.name not in names
        # Nothing in kwargs could be meant for one that has no keyword.
        is_needed = first.kind is kinds.POSITIONAL_ONLY and first.default is kinds.empty
        if is_free and (is_needed or names.union(kwargs).isdisjoint(INPUTS)):
            positional = (given.size,)
    for parameter in parameters[len(positional) :]:
        is_rest = parameter.kind in (kinds.VAR_POSITIONAL, kinds.VAR_KEYWORD)
        is_told = parameter.name in keywords or parameter.name in kwargs
        if not is_rest and not is_told and parameter.default is kinds.empty:
            raise TypeError(_lacking(parameter.name, given))
    return positional, keywords


def _parameters(factory: Callable[..., Any]) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(factory).parameters.values())
    except (TypeError, ValueError):  # of C code without a signature
        return []


def _lacking(name: str, given: Given) -> str:
    """What to say of a parameter that nothing is known for."""
    if name in NAMES:
        what = "no classes are learned"
        if name in INPUTS:
            is_row = len(given.row_shape) == 1
            images = f"events are images of shape {given.row_shape}, which have no columns"
            what = "events are rows" if is_row else images
        return f"needs {name!r}, but {what}: it may declare {either(given.by_name())}"
    near = did_you_mean(name, NAMES)
    return f"needs {name!r}, which is not in model.kwargs; it may declare {either(NAMES)}{near}"
