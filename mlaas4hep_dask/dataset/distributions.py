"""Histograms of the inputs of some events, before and after encoding, for the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlaas4hep_dask.dataset.binning import Bins, BranchBins, filled, populations, with_width
from mlaas4hep_dask.encode.encoded import encode_rows
from mlaas4hep_dask.encode.encoding import Encoding
from mlaas4hep_dask.encode.normalise import normalised
from mlaas4hep_dask.errors import UnreadableFileError
from mlaas4hep_dask.inputs.context import Context
from mlaas4hep_dask.inputs.labelled import Labelled, label
from mlaas4hep_dask.reader import Partition


class Histogram(NamedTuple):
    """Sums of weights in equal bins from ``low`` to ``high``, by label, each of shape (bins,).

    Parameters
    ----------
    low, high : float
        Ends of the bins.
    contents : mapping of str to ndarray of float64
        The sums.
    outside : (int, int)
        Values below and above, over all labels.
    populations : mapping of str to ndarray of float64
        Sums of weights in bins that hold equally many values of all labels together; empty for
        encoded values.
    """

    low: float
    high: float
    contents: Mapping[str, NDArray[np.float64]]
    outside: tuple[int, int] = (0, 0)
    populations: Mapping[str, NDArray[np.float64]] = MappingProxyType({})


@dataclass(frozen=True)
class Distributions:
    """Histograms of the inputs over some events, before and after encoding."""

    num_events: int
    raw: Mapping[str, Histogram]
    encoded: Mapping[str, Histogram]


def distributions(partition: Partition, context: Context, bins: BranchBins) -> Distributions:
    """Histograms of all inputs of one partition, by class; those of a regression by sample.

    Parameters
    ----------
    partition : Partition
        Whose selected events are counted, with the weights that they have in training.
    context : Context
        What all partitions share.
    bins : mapping of str to Bins
        By input; see `bins_of`.
    """
    assert context.encoding is not None  # set by the data set once it has specs
    if (labelled := readable(partition, context, context.encoding)) is None:
        return Distributions(0, {}, {})
    events = labelled.events
    encoded = encode_rows(events, context.encoding)
    names, groups = groups_of(labelled, partition, context)
    weights = labelled.weights * context.supervision.factors.get(partition.sample, 1.0)
    multiplicities = dict(zip(encoded.layout.collections, encoded.multiplicities(), strict=True))
    raw: dict[str, Histogram] = {}
    after: dict[str, Histogram] = {}
    for (branch, values), scaling, input_branch in zip(
        encoded.contents().items(),
        context.encoding.scalings,
        context.encoding.branches,
        strict=True,
    ):
        places = places_kept = np.arange(len(events))
        if input_branch.collection is not None:
            places = np.repeat(places, np.diff(events.offsets[input_branch.collection]))
            # without those that are truncated
            places_kept = np.repeat(places_kept, multiplicities[input_branch.collection])
        own_bins = bins[branch]
        ends, _, _ = normalised(np.array([own_bins.low, own_bins.high]), scaling)
        ends = np.where(np.isfinite(ends), ends, [scaling.encoded_low, scaling.encoded_high])
        after_bins = Bins(*with_width(float(ends.min()), float(ends.max())), np.zeros(0))
        entries = _Values(events.contents[branch], groups[places], weights[places])
        raw[branch] = entries.histogram(names, own_bins)
        after[branch] = _Values(values, groups[places_kept], weights[places_kept]).histogram(
            names, after_bins
        )
    return Distributions(len(events), raw, after)


def readable(partition: Partition, context: Context, encoding: Encoding) -> Labelled | None:
    """The events of a partition; None if it cannot be read and may be skipped."""
    try:
        return label(partition, context, tuple(branch.name for branch in encoding.reads))
    except UnreadableFileError:
        if not context.skip:
            raise
        return None  # where blocks are made, the lost range is told


class _Values:
    """Finite values with their groups and weights."""

    def __init__(
        self, values: NDArray[Any], groups: NDArray[np.int64], weights: NDArray[np.float64]
    ) -> None:
        finite = np.isfinite(values)
        self._values = values[finite].astype(np.float64)
        self._groups, self._weights = groups[finite], weights[finite]

    def histogram(self, names: list[str], bins: Bins) -> Histogram:
        contents, shares, below, above = {}, {}, 0, 0
        for number, name in enumerate(names):
            is_of_group = self._groups == number
            values, weights = self._values[is_of_group], self._weights[is_of_group]
            contents[name], (num_below, num_above) = filled(values, weights, bins)
            below, above = below + num_below, above + num_above
            if bins.populations.size:
                shares[name] = populations(values, weights, bins)
        return Histogram(bins.low, bins.high, contents, (below, above), shares)


def groups_of(
    labelled: Labelled, partition: Partition, context: Context
) -> tuple[list[str], NDArray[np.int64]]:
    """The labels of some events, or their sample without classes, and which of them each has."""
    if not context.supervision.objective.classes:
        return [partition.sample], np.zeros(len(labelled.events), np.int64)
    labels, groups = np.unique(labelled.learned, return_inverse=True)
    return [f"{value:.0f}" for value in labels], groups
