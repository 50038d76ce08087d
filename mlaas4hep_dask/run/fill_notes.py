"""How much of the range of its extremes a branch fills, which is what `minmax` scales it by."""

from __future__ import annotations

from typing import Any

from mlaas4hep_dask.encode.encoding import normalisations_of
from mlaas4hep_dask.specs import BranchSpecs, Specs

LITTLE = 0.1
MOST_VALUES = (0.005, 0.995)


def filled_share(specs: BranchSpecs) -> float:
    """The share of the range from minimum to maximum that 99 % of the values fill."""
    if specs.min is None or specs.max is None or specs.is_constant:
        return 1.0
    if specs.finite_drawn().size == 0:
        return 1.0
    first, last = specs.quantiles(MOST_VALUES)
    return (last / 2 - first / 2) / (specs.max / 2 - specs.min / 2)


def minmax_shares(specs: Specs, normalisation: Any) -> dict[str, float]:
    """By input that ``minmax`` normalises: the `filled_share`, the least first."""
    entries = specs.branches
    hows = normalisations_of(normalisation, list(entries))
    shares = {name: filled_share(entries[name]) for name, how in hows.items() if how == "minmax"}
    return dict(sorted(shares.items(), key=lambda pair: (pair[1], pair[0])))


def squeezed(specs: Specs, normalisation: Any) -> list[str]:
    """Inputs whose values fill little of the range that `minmax` scales them by."""
    shares = minmax_shares(specs, normalisation)
    return [name for name, share in shares.items() if share < LITTLE]


def minmax_notes(specs: Specs, normalisation: Any) -> list[str]:
    """What ``minmax`` does to the inputs that it was chosen for, if any."""
    shares = minmax_shares(specs, normalisation)
    if not shares:
        return []
    name, least = next(iter(shares.items()))
    num_little = sum(share < LITTLE for share in shares.values())
    more = (
        f", and those of {num_little} of {len(shares)} inputs less than {LITTLE:.0%}: outliers "
        "squeeze the rest, which encode.normalisation: auto does not let them"
        if least < LITTLE
        else ", the least of all inputs that minmax normalises"
    )
    return [f"minmax: 99 % of the values of {name} fill {100 * least:.2g} % of its range{more}"]
