"""What a network's outputs mean; training, export and serving share it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from mlaas4hep_dask.errors import EncodeError

Kind = Literal["binary", "classes", "regression", "reconstruction"]
_MEANINGS = {
    "binary": ("score", "probability of label 1"),
    "classes": ("probabilities", "probability of each class"),
    "regression": ("values", "predicted values of the targets"),
    "reconstruction": (
        "reconstruction_error",
        "mean squared error of the present values of an event, encoded",
    ),
}
_NAMES = {"regression": "targets", "reconstruction": "columns"}  # else classes


@dataclass(frozen=True)
class Outputs:
    """The outputs of a network.

    Parameters
    ----------
    kind : {"binary", "classes", "regression", "reconstruction"}
        One logit for class 1 of two; a logit for each of more classes; a number for each target;
        a row like the input.
    names : tuple of str
        Classes by label, targets, or columns.
    shifts, scales : tuple of float
        For each target of a regression, in whose case the network gives
        ``(value - shift) * scale``.
    """

    kind: Kind
    names: tuple[str, ...]
    shifts: tuple[float, ...] = field(default=())
    scales: tuple[float, ...] = field(default=())

    @classmethod
    def of_classes(cls, names: tuple[str, ...]) -> Outputs:
        """The outputs for two or more classes."""
        return cls("binary" if len(names) == 2 else "classes", names)

    @property
    def num_outputs(self) -> int:
        """Numbers that the network gives for an event."""
        return 1 if self.kind == "binary" else len(self.names)

    def as_json(self) -> dict[str, Any]:
        """The section ``output`` of a manifest."""
        name, meaning = _MEANINGS[self.kind]
        made: dict[str, Any] = {
            "kind": self.kind,
            "name": name,
            "meaning": meaning,
            "dtype": "float32",
        }
        if self.kind == "regression":
            shifts, scales = list(self.shifts), list(self.scales)
            return {**made, "targets": list(self.names), "shifts": shifts, "scales": scales}
        return {**made, _NAMES.get(self.kind, "classes"): list(self.names)}

    @classmethod
    def from_json(cls, output: Mapping[str, Any]) -> Outputs:
        """The outputs that the section ``output`` of a manifest describes.

        Raises
        ------
        EncodeError
            When it does not describe any.
        """
        if "kind" not in output:  # that of an earlier version
            return BINARY
        kind: Any = output["kind"]
        if kind not in get_args(Kind):
            raise EncodeError(f"output.kind is {kind!r}; expected one of {list(_MEANINGS)}")
        key = _NAMES.get(kind, "classes")
        names = output.get(key)
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise EncodeError(f"output.{key} is not a list of names")
        if kind == "reconstruction":
            if not names:
                raise EncodeError("output.columns is empty")
            return cls(kind, tuple(names))
        if kind != "regression":
            if len(names) < 2 or (kind == "binary") != (len(names) == 2):
                raise EncodeError(f"output.kind is {kind!r} with {len(names)} classes")
            return cls(kind, tuple(names))
        shifts: Any = output.get("shifts")
        scales: Any = output.get("scales")
        for numbers in (shifts, scales):
            if not isinstance(numbers, list) or len(numbers) != len(names):
                raise EncodeError("output gives no shift and scale for every target")
        if not names or not all(map(_is_usable, shifts)) or not all(map(_is_scale, scales)):
            raise EncodeError("output gives no usable shift and scale for every target")
        return cls(kind, tuple(names), tuple(shifts), tuple(scales))


BINARY = Outputs("binary", ("label 0", "label 1"))


def _is_usable(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _is_scale(value: Any) -> bool:
    return _is_usable(value) and value > 0
