"""Notes on inputs from which a network can compute what it is to learn."""

from __future__ import annotations

import logging

from mlaas4hep_dask.config import Selection
from mlaas4hep_dask.errors import listed
from mlaas4hep_dask.inputs.preflight import Preflight

logger = logging.getLogger(__name__)


def leak_notes(checked: Preflight) -> list[str]:
    """Warnings of inputs that tell of target or weight, and what may."""
    return _telling(checked.selection) + _counted(checked) + _made_beside(checked)


def _telling(selection: Selection) -> list[str]:
    """Warnings of inputs from which the network can compute what it is to learn."""
    notes = []
    for what in ("target", "weight"):
        names = [name for name, of in selection.told.items() if of == what]
        if names:
            notes.append(
                f"WARNING: {what} is made of {', '.join(names)} or of what "
                f"{'these are' if len(names) > 1 else 'it is'} made of: an input since "
                "branches.include names it; the network may learn from it what it will not know"
            )
            logger.warning("%s", notes[-1].removeprefix("WARNING: "))
    return notes


def _counted(checked: Preflight) -> list[str]:
    """A note on inputs that show how many objects there are, which the target tells."""
    supervision, recipe = checked.supervision, checked.recipe
    collections = recipe.collections_of(supervision.target_names, supervision.counted)
    inputs = [
        name for name in checked.selection.inputs if recipe.branches[name].collection in collections
    ]
    if not inputs:
        return []
    text = (
        f"the target is made of the number of objects of {', '.join(sorted(collections))}: the "
        f"inputs {listed(inputs)} show how many there are"
    )
    return [text]


def _made_beside(checked: Preflight) -> list[str]:
    """A note on inputs that a function makes beside the target."""
    if checked.traced is None:
        return []
    function_branches = checked.traced.branches.keys() - checked.traced.tree
    inputs = sorted(function_branches & {*checked.selection.inputs})
    targets = sorted(function_branches & checked.recipe.operands(checked.supervision.target_names))
    if not inputs or not targets:
        return []
    text = (
        f"the function makes {', '.join(targets)}, which the target is made of, and also the "
        f"inputs {listed(inputs)}: see that none of them tells the target"
    )
    return [text]
