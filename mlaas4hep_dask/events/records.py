"""Records, which are mappings of branch names to values, become columnar events."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import chain, islice
from operator import itemgetter
from types import NoneType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlaas4hep_dask.errors import EventError, did_you_mean, shown
from mlaas4hep_dask.events.events import Branch, Events, offsets_of

MAX_IGNORED = 100  # names of extra branches that are told
MAX_NAME = 100  # characters of each
MAX_NEAR = 200  # names among which the nearest is looked for
_UNFIT = (KeyError, TypeError, ValueError, OverflowError)  # what converting a misfit raises


class UnfitError(Exception):
    """Some event does not fit; `events_of` finds which and says why."""


def events_of(records: Sequence[Any], branches: Sequence[Branch], *, first: int = 0) -> Events:
    """Columnar events of records.

    Parameters
    ----------
    records : sequence
        One mapping of names to numbers, lists of numbers, or None for each event; what else is
        in there is refused, as are numbers that a branch's dtype does not hold.
    branches : sequence of Branch
        Branches to take, with the dtype that their values have in a file.
    first : int
        Number of the first of ``records`` in what a client sent, for errors.

    Raises
    ------
    EventError
        When an event does not fit the branches: the first that does not, and its first branch.
    """
    try:
        return columnar(records, branches)
    except UnfitError:
        pass  # it does not know the event
    event = _first_unfit(records, lambda some: columnar(some, branches))
    branch, problem = _problem_with(records[event], branches)
    event += first
    where = f"event {event}" if branch is None else f"event {event}, branch {branch!r}"
    raise EventError(f"{where}: {problem}", event=event, branch=branch)


def _first_unfit(items: Sequence[Any], convert: Callable[[Sequence[Any]], object]) -> int:
    """Place of the first of some items, not all of which fit, that does not."""
    start, stop = 0, len(items)  # it is among these
    while stop - start > 1:
        middle = (start + stop) // 2
        if _fit(items[start:middle], convert):
            start = middle
        else:
            stop = middle
    return start


def _fit(items: Sequence[Any], convert: Callable[[Sequence[Any]], object]) -> bool:
    try:
        convert(items)
    except (UnfitError, *_UNFIT):
        return False
    return True


def _problem_with(record: Any, branches: Sequence[Branch]) -> tuple[str | None, str]:
    """The first branch that a record does not fit, and why."""
    if not isinstance(record, dict):
        return None, f"expected an object with a value for each branch, got {shown(record)}"
    lengths: dict[str, tuple[str, int]] = {}
    for branch in branches:
        if branch.name not in record:
            names = {branch.name for branch in branches}
            extras = (name for name in record if name not in names and len(name) <= MAX_NAME)
            near = did_you_mean(branch.name, islice(extras, MAX_NEAR))
            return branch.name, f"it is missing{near}"
        value = record[branch.name]
        if branch.collection is None:
            problem = _problem_with_values([value], branch)
        elif not isinstance(value, list):
            problem = f"expected a list of numbers, got {shown(value)}"
        else:
            other, length = lengths.setdefault(branch.collection, (branch.name, len(value)))
            problem = _problem_with_values(value, branch)
            if len(value) != length:
                problem = (
                    f"it has {len(value)} values but {other!r} has {length}; both belong to the "
                    f"collection {branch.collection!r}"
                )
        if problem is not None:
            return branch.name, problem
    raise AssertionError("the record fits")


def _problem_with_values(values: Sequence[Any], branch: Branch) -> str | None:
    dtype = np.dtype(branch.dtype)

    def convert(some: Sequence[Any]) -> object:
        return _numbers(some, dtype)

    if _fit(values, convert):
        return None
    number = _first_unfit(values, convert)
    problem = _misfit(values[number], dtype)
    return problem if branch.collection is None else f"value {number}: {problem}"


def _misfit(value: Any, dtype: np.dtype[Any]) -> str:
    """Why `_numbers` does not take a value."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if dtype.kind == "b":
        return f"expected true or false, got {shown(value)}"
    if not is_number:
        return f"expected a number, got {shown(value)}"
    if dtype.kind != "f" and math.isfinite(value) and value != int(value):
        return f"{shown(value)} is not a whole number, which the branch's {dtype} needs"
    return f"{shown(value)} is beyond the range of {dtype}"


def extra_names(records: Sequence[Any], branches: Sequence[Branch]) -> set[str]:
    """Names in records that hold all ``branches``, other than these; at most `MAX_IGNORED`."""
    if sum(map(len, records)) == len(branches) * len(records):
        return set()
    names = {branch.name for branch in branches}
    extras: dict[str, None] = {}
    for record in records:
        extras.update(dict.fromkeys(record.keys() - names))
        if len(extras) >= MAX_IGNORED:
            break
    return {name[:MAX_NAME] for name in islice(extras, MAX_IGNORED)}


def columnar(records: Sequence[Any], branches: Sequence[Branch]) -> Events:
    """Columnar events of records, as `events_of`.

    Raises
    ------
    UnfitError
        When an event does not fit the branches.
    """
    try:
        return _columnar(records, branches)
    except _UNFIT:
        raise UnfitError from None


def _columnar(records: Sequence[Any], branches: Sequence[Branch]) -> Events:
    names = [branch.name for branch in branches]
    take = itemgetter(*names) if len(names) > 1 else lambda each: (each[names[0]],)
    columns = list(zip(*map(take, records), strict=True)) or [()] * len(names)
    multiplicities: dict[str, list[int]] = {}
    # One conversion per dtype: with a single event, the number of NumPy calls is the cost.
    by_dtype: dict[str, tuple[list[Any], list[tuple[Branch, int]]]] = {}
    for branch, column in zip(branches, columns, strict=True):
        values, ends = by_dtype.setdefault(branch.dtype, ([], []))
        if branch.collection is None:
            values.extend(column)
        else:
            if not set(map(type, column)) <= {list}:
                raise UnfitError
            lengths = list(map(len, column))
            if multiplicities.setdefault(branch.collection, lengths) != lengths:
                raise UnfitError
            values.extend(chain.from_iterable(column))
        ends.append((branch, len(values)))
    contents: dict[str, NDArray[Any]] = {}
    widened: set[str] = set()
    for dtype, (values, ends) in by_dtype.items():
        numbers = _numbers(values, np.dtype(dtype))
        if numbers.dtype != dtype:
            widened.add(dtype)
        begin = 0
        for branch, end in ends:
            contents[branch.name] = numbers[begin:end]
            begin = end
    offsets = {
        name: offsets_of(np.array(lengths, dtype=np.int64))
        for name, lengths in multiplicities.items()
    }
    typed = (
        replace(branch, dtype="float64") if branch.dtype in widened else branch
        for branch in branches
    )
    return Events(len(records), tuple(typed), contents, offsets)


def _numbers(values: Sequence[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """The values in ``dtype``, or in float64 when an integer is missing."""
    types = set(map(type, values))
    if dtype.kind == "f":
        if not types <= {float, int, NoneType}:
            raise UnfitError
        wide = np.array(values, dtype=np.float64)  # None becomes NaN
        if dtype == np.float64:
            return wide
        with np.errstate(over="ignore"):
            narrow = wide.astype(dtype)  # the score is that of the value the file would hold
        if np.isinf(narrow).any():
            raise UnfitError
        return narrow
    if types <= {int} and dtype.kind != "b":
        return np.array(values, dtype=dtype)  # OverflowError beyond its range
    if not types <= {int, float, NoneType} | ({bool} if dtype.kind == "b" else set()):
        raise UnfitError
    whole = _whole(values)
    if dtype.kind == "b" and not set(whole) <= {0, 1}:
        raise UnfitError
    integers = np.array(whole, dtype=dtype)
    if NoneType not in types:
        return integers
    # `encode` computes in float64, so this changes no value that is present.
    is_missing = np.array([value is None for value in values])
    return np.where(is_missing, np.nan, integers.astype(np.float64))


def _whole(values: Iterable[Any]) -> list[int]:
    whole = [0 if value is None else int(value) for value in values]
    if any(
        value is not None and value != number for value, number in zip(values, whole, strict=True)
    ):
        raise UnfitError
    return whole
