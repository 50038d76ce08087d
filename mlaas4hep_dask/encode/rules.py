"""Rules: options that hold for the branches or collections that match a pattern."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mlaas4hep_dask.errors import EncodeError, did_you_mean
from mlaas4hep_dask.patterns import matches

MAX_LISTED = 10  # names in an error
Rules = list[tuple[str, Any]]


def rules_of(value: Any) -> Rules:
    """Pairs of a pattern and its value.

    Parameters
    ----------
    value : any
        A mapping from patterns to values, or a list of such mappings; anything else is the value
        for all names.
    """
    if isinstance(value, Mapping):
        return list(value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [pair for entry in value for pair in entry.items()]
    return [("*", value)]


def apply_rules(
    rules: Rules, names: Iterable[str], *, default: Any, option: str, what: str
) -> dict[str, Any]:
    """The value for each name: that of the first pattern that matches, else ``default``.

    Raises
    ------
    EncodeError
        When a pattern matches no name, or none that an earlier pattern leaves to it (facts:
        option, pattern).
    """
    names = sorted(names)
    values: dict[str, Any] = {}
    for pattern, value in rules:
        matched = [name for name in names if matches(pattern, name)]
        fresh = [name for name in matched if name not in values]
        if not fresh and pattern != "*":
            raise EncodeError(
                f"{option}: pattern {pattern!r} matches "
                + (
                    f"no {what} that earlier patterns leave to it"
                    if matched
                    else f"no {what}{did_you_mean(pattern, names) or _listed(names)}"
                ),
                option=option,
                pattern=pattern,
            )
        values.update(dict.fromkeys(fresh, value))
    return {name: values.get(name, default) for name in names}


def _listed(names: list[str]) -> str:
    """The names, if they are few."""
    return f"; there are {', '.join(names)}" if 0 < len(names) <= MAX_LISTED else ""
