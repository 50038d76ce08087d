"""What differs between two specs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

from mlaas4hep_dask.errors import SpecsError
from mlaas4hep_dask.specs.branch import BranchSpecs
from mlaas4hep_dask.specs.sample import SampleSpecs
from mlaas4hep_dask.specs.specs import Specs

QUARTILES = (0.25, 0.5, 0.75)
COUNTS = ("num_values", "num_nan", "num_posinf", "num_neginf")


@dataclass(frozen=True, slots=True)
class Difference:
    """One value that two specs do not share.

    Parameters
    ----------
    place : str
        What it belongs to, such as ``branch Jet_pt`` or ``sample ttH``.
    what : str
        Name of the value.
    a, b : Any
        The value in either; None when there is none.
    shift : float or None
        For numbers of a branch: the difference in standard deviations of ``a``.
    """

    place: str
    what: str
    a: Any
    b: Any
    shift: float | None = None


def differences(a: Specs, b: Specs, *, tolerance: float = 1e-9) -> list[Difference]:
    """All that differs; of provenance, only what was selected and derived.

    Parameters
    ----------
    a, b : Specs
        What to compare.
    tolerance : float
        Numbers of a branch may differ by this fraction of its standard deviation or of their
        own size, whichever is larger, and sums of weights by this fraction. Counts are exact.
    """
    results = list(_of_events(a, b))
    for name in sorted({*a.branches, *b.branches}):
        results += _of_branch(name, a.branches.get(name), b.branches.get(name), tolerance)
    for name in sorted({*a.multiplicities, *b.multiplicities}):
        ours, theirs = (list(specs.multiplicities.get(name, ())) or None for specs in (a, b))
        if ours != theirs:
            results.append(Difference(f"collection {name}", "multiplicities", ours, theirs))
    for name in sorted({*a.samples, *b.samples}):
        results += _of_sample(name, a, b, tolerance)
    return results


def _of_events(a: Specs, b: Specs) -> Iterator[Difference]:
    theirs, ours = (specs.provenance.get("events") or {} for specs in (a, b))
    for key in sorted({*theirs, *ours}):
        if theirs.get(key) != ours.get(key):
            yield Difference("configuration", key, theirs.get(key), ours.get(key))


def _of_branch(
    name: str, a: BranchSpecs | None, b: BranchSpecs | None, tolerance: float
) -> Iterator[Difference]:
    place = f"branch {name}"
    if a is None or b is None:
        types = [None if entry is None else entry.branch.described() for entry in (a, b)]
        yield Difference(place, "type", types[0], types[1])
        return
    for what in ("kind", "dtype", "collection", "unit"):
        if getattr(a.branch, what) != getattr(b.branch, what):
            yield Difference(place, what, getattr(a.branch, what), getattr(b.branch, what))
    for what in COUNTS:
        if getattr(a.moments, what) != getattr(b.moments, what):
            yield Difference(place, what, getattr(a.moments, what), getattr(b.moments, what))
    ours, theirs = ({**numbers(entry), **_logarithms(entry)} for entry in (a, b))
    std = ours["std"] or 0.0
    for what, one in ours.items():
        other = theirs.get(what)
        if one is None or other is None:
            if one is not other:
                yield Difference(place, what, one, other)
            continue
        allowed = tolerance * max(std, abs(one), abs(other))
        if abs(one - other) > allowed:
            yield Difference(place, what, one, other, (other - one) / std if std else None)


def _of_sample(name: str, a: Specs, b: Specs, tolerance: float) -> Iterator[Difference]:
    place = f"sample {name}"
    ours, theirs = a.samples.get(name), b.samples.get(name)
    if ours is None or theirs is None:
        selected = [None if entry is None else entry.num_selected for entry in (ours, theirs)]
        yield Difference(place, "num_selected", selected[0], selected[1])
        return
    for what in (field.name for field in fields(SampleSpecs)):
        one, other = getattr(ours, what), getattr(theirs, what)
        if not _is_close(one, other, tolerance):
            yield Difference(place, what, one, other)


def _is_close(one: Any, other: Any, tolerance: float) -> bool:
    """True for equal values, and for sums that differ by no more than rounding."""
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=tolerance)
    if isinstance(one, tuple) and isinstance(other, tuple) and len(one) == len(other):
        return all(_is_close(a, b, tolerance) for a, b in zip(one, other, strict=True))
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return all(_is_close(a, other[key], tolerance) for key, a in one.items())
    return bool(one == other)


def _logarithms(entry: BranchSpecs) -> dict[str, float | None]:
    return {
        f"{key} {what}": value
        for key, moments in sorted(entry.transformed.items())
        for what, value in (
            ("mean", moments.mean),
            ("std", math.sqrt(moments.squares / max(moments.num_finite, 1))),
        )
    }


def numbers(entry: BranchSpecs) -> dict[str, float | None]:
    """Extremes, quartiles, mean and standard deviation of a branch; None where there is none."""
    try:
        quartiles: list[float | None] = list(entry.quantiles(QUARTILES))
    except SpecsError:
        quartiles = [None] * len(QUARTILES)
    variance = entry.variance
    return {
        "min": entry.min,
        **{f"q{100 * q:.0f}": value for q, value in zip(QUARTILES, quartiles, strict=True)},
        "max": entry.max,
        "mean": entry.mean,
        "std": None if variance is None else math.sqrt(variance),
    }
