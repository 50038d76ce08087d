"""Values of a summary that may lack them, and their text in the report."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mlaas4hep_dask.report.axes import MINUS, label

DASH = "\N{EN DASH}"


def mapping(parent: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """The mapping under ``key``, empty when it is absent."""
    return parent.get(key) or {}


def sequence(parent: Mapping[str, Any], key: str) -> Sequence[Any]:
    """The sequence under ``key``, empty when it is absent."""
    return parent.get(key) or ()


def is_number(value: Any) -> bool:
    """True for a finite number."""
    return isinstance(value, int | float) and math.isfinite(value)


def count(value: Any) -> str:
    """A whole number with separators; an en dash for what is unknown."""
    whole = is_number(value) and value == int(value)
    return f"{int(value):,}".replace("-", MINUS) if whole else number(value)


def number(value: Any, digits: int = 5) -> str:
    """A number with ``digits`` digits; an en dash for what is unknown."""
    if not is_number(value):
        return DASH
    short = float(f"{value:.{digits}g}")
    if short == 0 or 1e-3 <= abs(short) < 10**digits:
        return f"{short:,.{digits}g}".replace("-", MINUS)
    return label(short)


def fixed(value: Any, places: int = 4) -> str:
    """A number with ``places`` decimals; an en dash for what is unknown."""
    return f"{value:,.{places}f}".replace("-", MINUS) if is_number(value) else DASH


def rounded(value: Any) -> str:
    """A rate as a whole number, or with three digits below 100."""
    return count(round(value)) if is_number(value) and abs(value) >= 100 else number(value, 3)


def total(values: Iterable[Any]) -> Any:
    """The sum, or None when a value is unknown or there is none."""
    terms = list(values)
    return sum(terms) if terms and all(map(is_number, terms)) else None


def ratio(part: Any, whole: Any) -> float | None:
    """The quotient, or None when a value is unknown or the whole is 0."""
    return part / whole if is_number(part) and is_number(whole) and whole else None


def difference(a: Any, b: Any) -> Any:
    """``a - b``, or None when one is unknown."""
    return a - b if is_number(a) and is_number(b) else None


def input_text(facts: Mapping[str, Any]) -> str:
    """What a network is given, such as ``113 columns`` or ``images of 2 by 16 by 48``."""
    shape = facts.get("shape", ())
    if len(shape) == 3:
        return "images of " + " by ".join(map(str, shape))
    return f"{facts.get('num_columns')} columns"


def seed_text(seed: Any) -> str:
    """A seed of one number, or of one for each thing that chance decides."""
    if not isinstance(seed, Mapping):
        return str(seed)
    return ", ".join(f"{name} {value}" for name, value in seed.items())
