"""From a partition to the events that the network sees, with what it learns of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlaas4hep_dask.derive.recipe import Prepared
from mlaas4hep_dask.derive.rows import only
from mlaas4hep_dask.encode.split import event_ids, file_id, split_of
from mlaas4hep_dask.events import Branch, Events
from mlaas4hep_dask.events.lengths import require_length
from mlaas4hep_dask.inputs.context import Context
from mlaas4hep_dask.inputs.prepare import Preparation, applied, read_raw
from mlaas4hep_dask.inputs.supervision import Supervision
from mlaas4hep_dask.reader import Partition, read
from mlaas4hep_dask.specs.draw import entry_keys
from mlaas4hep_dask.specs.meter import Meter


@dataclass(frozen=True)
class Labelled:
    """The selected events of a partition.

    Parameters
    ----------
    events : Events
        The branches that were asked for; where they were metered others too, and not all.
    ids : ndarray of uint64, shape (events, 2)
        Stable ids.
    split : ndarray of uint8, shape (events,)
        0 for training, 1 for validation, 2 for test.
    learned : ndarray of float32, shape (events,) or (events, targets)
        Labels, or targets of a regression.
    weights : ndarray of float64, shape (events,)
        Their own weights, before the factor of the sample.
    weights_read : ndarray of float64, shape (events read,)
        The own weights of all events read, selected or not, as they are in the file where it has
        them.
    cut_flow, removed : mapping of str to int
        As those of `Prepared`.
    branches : tuple of Branch
        The branches that were asked for.
    meter : Meter or None
        What was measured while they were read: enough of those that ``events`` lacks.

    Raises
    ------
    DataError
        When one of them is of other events than the others.
    """

    events: Events
    ids: NDArray[np.uint64]
    split: NDArray[np.uint8]
    learned: NDArray[np.float32]
    weights: NDArray[np.float64]
    weights_read: NDArray[np.float64]
    cut_flow: Mapping[str, int]
    removed: Mapping[str, int]
    branches: tuple[Branch, ...]
    meter: Meter | None = None

    def __post_init__(self) -> None:
        arrays: dict[str, NDArray[Any]] = {"ids": self.ids, "split": self.split}
        arrays |= {"labels": self.learned, "weights": self.weights}
        for what, array in arrays.items():
            require_length(f"{what} of selected events", array, len(self.events))


def label(
    partition: Partition, context: Context, keep: tuple[str, ...], *, metered: bool = False
) -> Labelled:
    """The selected events of one partition, with labels or targets, and weights.

    Parameters
    ----------
    partition : Partition
        Entry range of a file.
    context : Context
        What all partitions share.
    keep : tuple of str
        Branches of the result, in this order.
    metered : bool
        Measure them while they are read, where no event or object is left out afterwards. Values
        that nothing else needs are not kept then.

    Raises
    ------
    UnreadableFileError
        When it cannot be read.
    DataError
        When a label or a weight is not what it has to be.
    """
    supervision, preparation = context.supervision, context.preparation
    names = tuple(dict.fromkeys([*keep, *supervision.names]))
    if names != preparation.keep:
        preparation = preparation.fewer(names)
    meter = None
    if metered and not preparation.leaves_out:
        start, stop = partition.entry_start, partition.entry_stop
        meter = Meter(entry_keys(file_id(partition.identity), start, stop))
    needed = None
    if meter is not None and not preparation.recipe:  # its expressions may need any
        needed = {*supervision.names, *context.transforms}
    raw = read_raw(partition, preparation, meter, needed)
    prepared = applied(raw, preparation)
    events, selected = prepared.events, prepared.selected
    by_name = {branch.name: branch for branch in (*preparation.reads, *events.branches)}
    ids = event_ids(partition.identity, partition.entry_start, partition.entry_stop)
    entries = np.arange(partition.entry_start, partition.entry_stop)
    if selected is None:
        weights_read = weights = supervision.weights(events, partition, entries)
    else:
        weights_read = _weights_read(raw, partition, preparation, supervision)
        ids, entries = ids[selected], entries[selected]
        # not those that were read: the function may have multiplied them by its scale factors
        weights = supervision.weights(events, partition, entries)
    require_length("weights of the events read", weights_read, len(partition))
    return Labelled(
        events=events if names == keep or meter is not None else only(events, keep),
        ids=ids,
        split=split_of(ids, context.fractions, seed=context.seed),
        learned=supervision.learned(events, partition, entries),
        weights=weights,
        weights_read=weights_read,
        cut_flow=prepared.cut_flow,
        removed=prepared.removed,
        branches=tuple(by_name[name] for name in keep),
        meter=meter,
    )


def _weights_read(
    raw: Prepared, partition: Partition, preparation: Preparation, supervision: Supervision
) -> NDArray[np.float64]:
    """The own weights of all events of a partition, selected or not."""
    entries = np.arange(partition.entry_start, partition.entry_stop)
    names, recipe = sorted(supervision.weight_names), preparation.recipe
    if supervision.weight is None:
        return np.ones(len(partition))
    if raw.selected is None:
        events = recipe.prepare(raw.events, names, select=False).events
        return supervision.weights_read(events, partition, entries)
    assert preparation.use is not None  # only a function selects before the recipe
    tree = {branch.name: branch for branch in preparation.use.tree}
    if tree.keys() >= set(names):
        events = read(partition, [tree[name] for name in names])
        return supervision.weights_read(events, partition, entries)
    # What the function makes is known of the events that it returns.
    events = recipe.prepare(raw.events, names, select=False).events if recipe else raw.events
    weights = np.zeros(len(partition))
    weights[raw.selected] = supervision.weights(events, partition, entries[raw.selected])
    return weights
