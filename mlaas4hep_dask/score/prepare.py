"""Raw events with derived branches and without the objects that were cut."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np

from mlaas4hep_dask.bundle import Bundle
from mlaas4hep_dask.errors import EventError, ExpressionError
from mlaas4hep_dask.events import Branch, Events


def prepared(bundle: Bundle, events: Events, *, first: int = 0) -> Events:
    """Raw events as the encoding of a bundle takes them.

    Parameters
    ----------
    bundle : Bundle
        Its recipe derives branches and cuts objects.
    events : Events
        What it reads; a branch in which values are missing may be float64, with NaN for these.
    first : int
        Number of the first event in its request, for errors.

    Raises
    ------
    EventError
        When a value that an expression needs is missing.
    """
    if bundle.recipe is None:
        return events
    expressions = (*bundle.recipe.derived.values(), *bundle.recipe.objects.values())
    operands = {name for expression in expressions for name in expression.names}
    events = _narrowed(events, bundle.reads, operands, first)
    try:
        return bundle.prepared(events)
    except ExpressionError as error:
        raise EventError(
            f"{error}; is a value null where this needs a condition or a whole number?",
            event=None,
            branch=None,
        ) from None


def _narrowed(
    events: Events, branches: Sequence[Branch], operands: Collection[str], first: int
) -> Events:
    """Events in which a branch without a null has its own dtype.

    A null makes float64 of all branches that have the dtype of its own. To an expression that is
    something else than whole numbers or conditions, and other events of the batch would change.
    """
    contents = dict(events.contents)
    for branch in branches:
        values = contents[branch.name]
        if values.dtype == branch.dtype:
            continue
        nulls = np.flatnonzero(np.isnan(values))
        if not nulls.size:
            contents[branch.name] = values.astype(branch.dtype)
        elif branch.dtype == "bool" and branch.name in operands:
            event = int(nulls[0])
            if branch.collection is not None:
                event = int(np.searchsorted(events.offsets[branch.collection], event, "right")) - 1
            event += first
            raise EventError(
                f"event {event}, branch {branch.name!r}: null, where the model needs true or false",
                event=event,
                branch=branch.name,
            )
    typed = tuple(
        replace(branch, dtype=contents[branch.name].dtype.name) for branch in events.branches
    )
    return replace(events, branches=typed, contents=contents)
