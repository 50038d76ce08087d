"""Histograms of the inputs of some events, before and after encoding, for the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlaas4hep_dask.dataset.context import Context
from mlaas4hep_dask.dataset.labelled import Labelled, label
from mlaas4hep_dask.encode.encoded import encode_rows
from mlaas4hep_dask.errors import UnreadableFileError
from mlaas4hep_dask.reader import Partition

NUM_BINS = 50


class Histogram(NamedTuple):
    """Counts in equal bins from ``low`` to ``high``, by label, each of shape (bins,)."""

    low: float
    high: float
    counts: Mapping[str, NDArray[np.int64]]


@dataclass(frozen=True)
class Distributions:
    """Histograms of the inputs over some events, before and after encoding."""

    num_events: int
    raw: Mapping[str, Histogram]
    encoded: Mapping[str, Histogram]


def distributions(partition: Partition, context: Context) -> Distributions:
    """Histograms of all inputs of one partition, by class; those of a regression by sample."""
    assert context.encoding is not None  # set by the data set once it has specs
    try:
        found = label(partition, context, tuple(b.name for b in context.encoding.reads))
    except UnreadableFileError:
        if not context.skip:
            raise
        return Distributions(0, {}, {})  # where blocks are made, the loss is told
    events = found.events
    encoded = encode_rows(events, context.encoding)
    names, groups = groups_of(found, partition, context)
    kept = dict(zip(encoded.layout.collections, encoded.multiplicities(), strict=True))
    raw: dict[str, Histogram] = {}
    after: dict[str, Histogram] = {}
    for (branch, values), scaling, known in zip(
        encoded.contents().items(),
        context.encoding.scalings,
        context.encoding.branches,
        strict=True,
    ):
        own = own_kept = groups
        if known.collection is not None:
            own = np.repeat(groups, np.diff(events.offsets[known.collection]))
            own_kept = np.repeat(groups, kept[known.collection])  # without those truncated
        for made, given, of_group, low, high in (
            (raw, events.contents[branch], own, scaling.low, scaling.high),
            (after, values, own_kept, scaling.encoded_low, scaling.encoded_high),
        ):
            counts = {
                name: _histogram(given[of_group == number] if len(names) > 1 else given, low, high)
                for number, name in enumerate(names)
            }
            made[branch] = Histogram(*_bounds(low, high), counts)
    return Distributions(len(events), raw, after)


def groups_of(
    found: Labelled, partition: Partition, context: Context
) -> tuple[list[str], NDArray[np.int64]]:
    """The labels of some events, or their sample in a regression, and which of them each has."""
    if not context.supervision.classes:
        return [partition.sample], np.zeros(len(found.events), np.int64)
    labels, groups = np.unique(found.learned, return_inverse=True)
    return [f"{value:.0f}" for value in labels], groups


def _bounds(low: float, high: float) -> tuple[float, float]:
    return (low - 0.5, high + 0.5) if high <= low else (low, high)


def _histogram(values: NDArray[Any], low: float, high: float) -> NDArray[np.int64]:
    low, high = _bounds(low, high)
    with np.errstate(invalid="ignore", over="ignore"):
        bins = (values.astype(np.float64) - low) * (NUM_BINS / (high - low))
        # False for NaN; the extremes themselves may be a rounding outside, in float32 above all
        inside = (bins >= -1e-4) & (bins <= NUM_BINS + 1e-4)
        chosen = np.clip(bins[inside], 0, NUM_BINS - 1).astype(np.int64)
    return np.bincount(chosen, minlength=NUM_BINS)
