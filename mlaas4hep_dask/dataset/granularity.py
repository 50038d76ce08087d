"""Whether the cells of images are too coarse, from the first events of each sample."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from mlaas4hep_dask.encode.encoded_images import suggested_factor

Tried = Mapping[str, Mapping[str, list[int]]]


class Suggestion(NamedTuple):
    """How many objects of a plane share a cell, and what would change it.

    Parameters
    ----------
    plane : str
        Such as ``Jet (eta, phi)``.
    inside, shared : int
        Objects in the plane, and those in a cell that an earlier object of their event is in.
    factor : float or None
        So many times the cells along each axis are suggested; None when nothing tried will do.
    """

    plane: str
    inside: int
    shared: int
    factor: float | None

    def __str__(self) -> str:
        advice = "and no number of cells that was tried makes that less than 1 %"
        if self.factor is not None:
            times = f"{self.factor:g} times the cells along each axis"
            advice = f"suggested, for less than 1 %: {times}"
        share = self.shared / self.inside if self.inside else 0.0
        return f"image, {self.plane}: {share:.2%} of {self.inside:,} objects share a cell; {advice}"


def added(parts: Iterable[Tried]) -> Tried:
    """The numbers of several partitions together."""
    total: dict[str, dict[str, list[int]]] = {}
    for part in parts:
        for plane, tried in part.items():
            sums = total.setdefault(plane, {})
            for factor, (inside, shared) in tried.items():
                earlier = sums.get(factor, [0, 0])
                sums[factor] = [earlier[0] + inside, earlier[1] + shared]
    return total


def suggestions(total: Tried) -> list[Suggestion]:
    """One for each plane."""
    return [
        Suggestion(plane, tried["1"][0], tried["1"][1], suggested_factor(dict(tried)))
        for plane, tried in sorted(total.items())
    ]
