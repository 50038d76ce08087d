"""Placeholders such as -999: which values they are, and where they go when branches are encoded.

A network is not given the missing mask, unless it asks for it. A placeholder among typical values
hides from it that a value is absent; beside the others it is one more value that has to be told
from them; and far away it drowns them. So it goes where the classes say: away from where it would
cost something, if it tells nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mlaas4hep_dask.specs import Specs
from mlaas4hep_dask.specs.draw import NO_CLASS

Role = Literal["beside", "apart", "far", "missing"]

MAX_POINTS = 24  # different values that are all points of their own
PLACEHOLDER = 0.02  # share of all values that one value has at least
BEYOND = 0.005  # share that may lie beyond it at most
MOST_PLACEHOLDERS = 3
FEW = 100  # drawn values of a class that are too few to compare
SURE = 3.0  # standard errors by which shares differ


def roles_of(specs: Specs, names: Iterable[str]) -> dict[str, Role]:
    """Where the placeholder of a branch goes, for those of which it is not ``beside`` the values.

    Of branches that are absent in the same events, such as those of a second jet, one tells all
    about it: the one whose other values tell the least. Its placeholder is ``far`` from them, which
    then vary little beside it, where absence tells more than they do; else it is ``apart``, or
    ``beside`` the values of a branch that is absent by itself. Those of the other branches are
    ``missing``, and so are all where the classes do not differ in how often values are absent.
    Nothing is said without classes, or of branches with several placeholders.

    Parameters
    ----------
    specs : Specs
        Specs of the whole data set.
    names : iterable of str
        The branches.
    """
    alike: dict[tuple[str, bytes], list[tuple[str, NDArray[np.bool_]]]] = {}
    classes_of_group: dict[str, list[int]] = {}
    for name in names:
        entry = specs.branches[name]
        draw = specs.draws.get(entry.group)
        if draw is None or draw.class_numbers is None:
            continue
        if entry.group not in classes_of_group:
            num_by_class = np.bincount(draw.class_numbers, minlength=NO_CLASS + 1)[:NO_CLASS]
            num_known = int(num_by_class.sum())
            enough = (num_by_class >= FEW) & (num_known - num_by_class >= FEW)
            classes_of_group[entry.group] = np.flatnonzero(enough).tolist()
        if not classes_of_group[entry.group]:
            continue
        below, _, above = set_aside(np.sort(entry.finite_drawn()))
        if below.size + above.size == 1:
            is_absent = entry.drawn == np.concatenate([below, above])[0]
            alike.setdefault((entry.group, is_absent.tobytes()), []).append((name, is_absent))
    roles: dict[str, Role] = {}
    for (group, _), members in alike.items():
        is_absent = members[0][1]
        classes, compared = specs.draws[group].classes, classes_of_group[group]
        of_absence = _told_by_absence(is_absent, classes, compared)
        of_values = {
            name: _told_by_values(
                specs.branches[name].drawn[~is_absent], classes[~is_absent], compared
            )
            for name, _ in (members if of_absence else ())
        }
        roles.update((name, "missing") for name, _ in members)
        if of_values:
            least = min(of_values, key=lambda name: (of_values[name], name))
            is_far, is_single = of_absence > of_values[least], len(members) == 1
            roles[least] = "far" if is_far else "beside" if is_single else "apart"
    return {name: role for name, role in roles.items() if role != "beside"}


def _told_by_absence(
    is_absent: NDArray[np.bool_], classes: NDArray[np.uint8], compared: list[int]
) -> float:
    """By how much the share of a class differs from that of the others at most; 0 if none does."""
    most = 0.0
    is_known = classes != NO_CLASS
    for number in compared:
        of_class, others = is_absent[classes == number], is_absent[is_known & (classes != number)]
        share = is_absent[is_known].mean()
        error = np.sqrt(share * (1 - share) * (1 / of_class.size + 1 / others.size))
        difference = abs(float(of_class.mean() - others.mean()))
        if difference > SURE * error:
            most = max(most, difference)
    return most


def _told_by_values(values: NDArray[Any], classes: NDArray[np.uint8], compared: list[int]) -> float:
    """The largest distance of cumulative distributions, of a class and the others."""
    most = 0.0
    is_usable = np.isfinite(values) & (classes != NO_CLASS)
    for number in compared:
        of_class = np.sort(values[is_usable & (classes == number)])
        others = np.sort(values[is_usable & (classes != number)])
        if of_class.size and others.size:
            both = np.concatenate([of_class, others])
            below = [
                np.searchsorted(part, both, side="right") / part.size for part in (of_class, others)
            ]
            most = max(most, float(np.abs(below[0] - below[1]).max()))
    return most


def set_aside(
    values: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Placeholders below the other sorted values, these, and placeholders above them.

    A placeholder is one value of many events that is farther from the others than they are from
    each other, and has no more than a few outliers beyond it.
    """
    below: list[float] = []
    above: list[float] = []
    bulk = values
    for _ in range(MOST_PLACEHOLDERS):
        if not _crowds(bulk, values.size) and not _crowds(bulk[::-1], values.size):
            break
        distinct, starts, frequencies = np.unique(bulk, return_index=True, return_counts=True)
        if distinct.size <= MAX_POINTS:
            break
        k = int(frequencies.argmax())
        first, last = int(starts[k]), int(starts[k] + frequencies[k])
        is_low = first <= BEYOND * values.size
        rest = bulk[last:] if is_low else bulk[:first]
        is_high = bulk.size - last <= BEYOND * values.size
        if frequencies[k] < PLACEHOLDER * values.size or rest.size == 0 or not (is_low or is_high):
            break
        near, far = np.quantile(rest, [BEYOND, 1 - BEYOND], method="inverted_cdf").tolist()
        gap = near / 2 - distinct[k] / 2 if is_low else distinct[k] / 2 - far / 2
        if gap < far / 2 - near / 2:
            break
        (below if is_low else above).append(float(distinct[k]))
        bulk = rest
    return np.array(below), bulk, np.array(above[::-1])


def _crowds(values: NDArray[np.float64], num_all: int) -> bool:
    """Whether a value near the beginning may be one of many events: seen without counting."""
    first, last = int(BEYOND * num_all) + 1, int(PLACEHOLDER * num_all) - 1
    return first >= last or (last < values.size and bool(values[first] == values[last]))
