"""An event to try a model with."""

from __future__ import annotations

from typing import Any

from mlaas4hep_dask.bundle import Bundle
from mlaas4hep_dask.specs import BranchSpecs


def example_of(bundle: Bundle) -> dict[str, Any]:
    """A record inside the specs of a bundle, which its model scores.

    A flat branch that counts a collection by its name, such as ``nJet``, agrees with it.
    """
    if bundle.recipe is not None and bundle.manifest.get("example"):
        return dict(bundle.manifest["example"])
    record: dict[str, Any] = {}
    counted: dict[str, int] = {}
    for branch in bundle.encoding.reads:
        # Objects may be sorted by a branch that is no input; the specs do not know it.
        specs = bundle.specs.branches.get(branch.name, BranchSpecs(branch))
        value: float | int | bool | None = None
        if specs.min is not None and specs.max is not None and specs.mean is not None:
            whole = not branch.dtype.startswith("float")
            value = float(f"{specs.mean:.0f}") if whole else float(f"{specs.mean:.4g}")
            value = value if specs.min <= value <= specs.max else specs.min
            value = int(value) if whole else value
            value = bool(value) if branch.dtype == "bool" else value
        if branch.collection is None:
            record[branch.name] = value
        else:
            num_objects = min(2, bundle.specs.max_multiplicity(branch.collection))
            record[branch.name] = [value] * num_objects
            counted[f"n{branch.collection}".casefold()] = num_objects
    for name, present in record.items():
        if name.casefold() in counted and isinstance(present, int):
            record[name] = counted[name.casefold()]
    return record
