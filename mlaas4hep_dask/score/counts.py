"""Counts of each part of a batch that was encoded as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlaas4hep_dask.encode import EncodeCounts, Encoding, encode
from mlaas4hep_dask.events import Events
from mlaas4hep_dask.events.events import between


def counts_of_parts(
    counts: EncodeCounts, events: Events, encoding: Encoding, *, sizes: Sequence[int]
) -> list[EncodeCounts]:
    """The counts that `encode` would give each part alone.

    Parameters
    ----------
    counts : EncodeCounts
        Those of all events; only what they name is looked at again.
    events : Events
        All events, one part after the other.
    encoding : Encoding
        What they were encoded with.
    sizes : sequence of int
        Number of events in each part.
    """
    if len(sizes) == 1 or counts == EncodeCounts():
        return [counts] * len(sizes)
    if encoding.image is not None:  # which objects share a cell is seen by drawing them
        ends = np.cumsum(sizes).tolist()
        return [
            encode(between(events, end - size, end), encoding).counts
            for size, end in zip(sizes, ends, strict=True)
        ]
    parts = np.repeat(np.arange(len(sizes)), sizes)  # (events,)
    shares: list[tuple[dict[str, int], dict[str, int], dict[str, int]]]
    shares = [({}, {}, {}) for _ in sizes]

    def share(kind: int, name: str, owners: NDArray[Any]) -> None:
        """Count one for each of ``owners``, the parts that something happened in."""
        for part, number in enumerate(np.bincount(owners).tolist()):
            if number:
                shares[part][kind][name] = number

    branches_with_counts = counts.not_finite.keys() | counts.out_of_range.keys()
    for branch, scaling in zip(encoding.branches, encoding.scalings, strict=True):
        if branch.name in branches_with_counts:
            values = events.contents[branch.name].astype(np.float64)
            owners = parts  # of each value
            if branch.collection is not None:
                owners = np.repeat(parts, np.diff(events.offsets[branch.collection]))
            is_missing = scaling.is_missing(values)
            outside = ~is_missing & ((values < scaling.low) | (values > scaling.high))
            share(0, branch.name, owners[is_missing])
            share(1, branch.name, owners[outside])
    widths = {branch.collection: branch.width for branch in encoding.layout.jagged}
    for collection in counts.truncated:
        excess = np.diff(events.offsets[collection]) - widths[collection]
        share(2, collection, np.repeat(parts, np.maximum(excess, 0)))
    return [EncodeCounts(*each) for each in shares]
