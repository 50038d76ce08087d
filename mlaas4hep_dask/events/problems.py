"""Finds the first event that does not fit the branches and says why."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any

import numpy as np

from mlaas4hep_dask.errors import PayloadError, did_you_mean, shown
from mlaas4hep_dask.events.events import Branch

MAX_NEAR = 200  # names among which the nearest is looked for


def first_problem(
    objects: Sequence[Any], branches: Sequence[Branch], *, first: int = 0
) -> PayloadError:
    """The error of the first event that does not fit, with its event and branch.

    Parameters
    ----------
    objects : sequence
        JSON values, one per event, of which at least one does not fit.
    branches : sequence of Branch
        Branches that every event must hold.
    first : int
        Number of the first of ``objects`` in its request.
    """
    for event, each in enumerate(objects, start=first):
        found = _problem_with_event(each, branches)
        if found is not None:
            branch, problem = found
            where = f"event {event}" if branch is None else f"event {event}, branch {branch!r}"
            return PayloadError(f"{where}: {problem}", event=event, branch=branch, status=422)
    raise AssertionError("every event fits")


def _problem_with_event(each: Any, branches: Sequence[Branch]) -> tuple[str | None, str] | None:
    if not isinstance(each, dict):
        return None, f"expected an object with a value for each branch, got {shown(each)}"
    lengths: dict[str, tuple[str, int]] = {}
    for branch in branches:
        if branch.name not in each:
            known = {branch.name for branch in branches}
            extras = (name for name in each if name not in known and len(name) <= 100)
            near = did_you_mean(branch.name, islice(extras, MAX_NEAR))
            return branch.name, f"it is missing{near}"
        value = each[branch.name]
        problem = (
            _problem_with_number(value, np.dtype(branch.dtype))
            if branch.collection is None
            else _problem_with_list(value, branch, lengths)
        )
        if problem is not None:
            return branch.name, problem
    return None


def _problem_with_list(
    value: Any, branch: Branch, lengths: dict[str, tuple[str, int]]
) -> str | None:
    if not isinstance(value, list):
        return f"expected a list of numbers, got {shown(value)}"
    assert branch.collection is not None
    other, length = lengths.setdefault(branch.collection, (branch.name, len(value)))
    if len(value) != length:
        return (
            f"it has {len(value)} values but {other!r} has {length}; both belong to the "
            f"collection {branch.collection!r}"
        )
    dtype = np.dtype(branch.dtype)
    low, high = _plain_range(dtype)
    for number, item in enumerate(value):
        # Most are in order, and one that is not may come after very many of them.
        if (type(item) is float or type(item) is int) and low <= item <= high:
            continue
        problem = _problem_with_number(item, dtype)
        if problem is not None:
            return f"value {number}: {problem}"
    return None


def _plain_range(dtype: np.dtype[Any]) -> tuple[float, float]:
    """Range of values that fit a dtype at a glance; nothing where they may have to be whole."""
    if dtype.kind != "f":
        return 1.0, 0.0
    limit = float(np.finfo(dtype).max)
    return -limit, limit


def _problem_with_number(value: Any, dtype: np.dtype[Any]) -> str | None:
    if value is None:
        return None
    if isinstance(value, bool):
        return None if dtype.kind == "b" else f"expected a number, got {shown(value)}"
    if not isinstance(value, int | float):
        expected = "true or false" if dtype.kind == "b" else "a number"
        return f"expected {expected}, got {shown(value)}"
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            fits = np.isfinite(np.float64(value).astype(dtype))
        return None if fits else f"{shown(value)} is beyond the range of {dtype}"
    if dtype.kind == "b":
        return None if value in (0, 1) else f"expected true or false, got {shown(value)}"
    if value != int(value):
        return f"{shown(value)} is not a whole number, which the branch's {dtype} needs"
    limits = np.iinfo(dtype)
    if not limits.min <= value <= limits.max:
        return f"{shown(value)} is beyond the range of {dtype}"
    return None
