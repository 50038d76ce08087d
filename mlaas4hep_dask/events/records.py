"""Records, which are mappings of branch names to values, become columnar events."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import chain, islice
from operator import itemgetter
from types import NoneType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlaas4hep_dask.events.events import Branch, Events, offsets_of
from mlaas4hep_dask.events.problems import first_problem

MAX_IGNORED = 100  # names of extra branches that are told
MAX_NAME = 100  # characters of each


class UnfitError(Exception):
    """Some event does not fit; `events_of` finds which and says why."""


def events_of(objects: Sequence[Any], branches: Sequence[Branch], *, first: int = 0) -> Events:
    """Columnar events of parsed ones.

    Parameters
    ----------
    objects : sequence
        JSON objects, one per event.
    branches : sequence of Branch
        Branches to take.
    first : int
        Number of the first of ``objects`` in its request, for error messages.

    Raises
    ------
    PayloadError
        When an event does not fit the branches.
    """
    try:
        return columnar(objects, branches)
    except UnfitError:
        pass  # it does not know the event
    start, stop = 0, len(objects)  # the first that does not fit is among these
    while stop - start > 1:
        middle = (start + stop) // 2
        try:
            columnar(objects[start:middle], branches)
            start = middle
        except UnfitError:
            stop = middle
    raise first_problem(objects[start:stop], branches, first=first + start)


def extra_names(objects: Sequence[Any], branches: Sequence[Branch]) -> set[str]:
    """Names in events that hold all ``branches``, other than these; at most `MAX_IGNORED`."""
    if sum(map(len, objects)) == len(branches) * len(objects):
        return set()
    known = {branch.name for branch in branches}
    extras: dict[str, None] = {}
    for each in objects:
        extras.update(dict.fromkeys(each.keys() - known))
        if len(extras) >= MAX_IGNORED:
            break
    return {name[:MAX_NAME] for name in islice(extras, MAX_IGNORED)}


def columnar(objects: Sequence[Any], branches: Sequence[Branch]) -> Events:
    """Columnar events of parsed ones, as `events_of`.

    Raises
    ------
    UnfitError
        When an event does not fit the branches.
    """
    try:
        return _columnar(objects, branches)
    except (KeyError, TypeError, OverflowError):
        raise UnfitError from None


def _columnar(objects: Sequence[Any], branches: Sequence[Branch]) -> Events:
    names = [branch.name for branch in branches]
    take = itemgetter(*names) if len(names) > 1 else lambda each: (each[names[0]],)
    columns = list(zip(*map(take, objects), strict=True)) or [()] * len(names)
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
            counts = list(map(len, column))
            if multiplicities.setdefault(branch.collection, counts) != counts:
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
        name: offsets_of(np.array(counts, dtype=np.int64))
        for name, counts in multiplicities.items()
    }
    found = (
        replace(branch, dtype="float64") if branch.dtype in widened else branch
        for branch in branches
    )
    return Events(len(objects), tuple(found), contents, offsets)


def _numbers(values: list[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
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
