"""What workers do with one partition: measure it, or make its block."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlaas4hep_dask.dataset.lost import empty_events, tell
from mlaas4hep_dask.dataset.plan import Skipped
from mlaas4hep_dask.dataset.progress import tell_progress, tell_sample
from mlaas4hep_dask.encode import Block, EncodeCounts, Encoding, encode
from mlaas4hep_dask.encode.scaling import Scaling
from mlaas4hep_dask.encode.split import event_ids
from mlaas4hep_dask.errors import DataError, UnreadableFileError
from mlaas4hep_dask.events import Events
from mlaas4hep_dask.inputs.context import Context
from mlaas4hep_dask.inputs.labelled import Labelled, label
from mlaas4hep_dask.reader import Partition, ReadCounts, counting
from mlaas4hep_dask.specs import SampleSpecs, Specs
from mlaas4hep_dask.specs.measure import measure
from mlaas4hep_dask.specs.specs import merge_all

ROUNDING = 1e-4  # of the larger extreme: a difference of large numbers loses most of its bits
_CHANGED = (
    "the two passes do not see the same. Either something has changed that a function depends on, "
    "such as an environment variable or a file: run again with --set specs.cache=null, since the "
    "cache does not know it. Or a function draws random numbers: take the seed of its generator "
    "from the events, such as the number of the first one"
)


@dataclass(frozen=True)
class Measured:
    """Specs of some partitions.

    Parameters
    ----------
    specs : Specs
        Merged specs.
    split_counts : mapping of int to tuple of int
        By number of the partition: events for training, validation and test.
    skipped : tuple of Skipped
        Partitions that could not be read.
    num_cached : int
        Events whose specs came from the cache; they were not read.
    samples : mapping of str to SampleSpecs
        By sample: all events that the data set holds; filled once all parts are merged.
    read_counts : ReadCounts
        What reading cost beside the plain way.
    num_not_kept, why_not_kept : int, str
        Files whose specs the cache could not keep, and the reason for one of them.
    """

    specs: Specs
    split_counts: Mapping[int, tuple[int, int, int]]
    skipped: tuple[Skipped, ...] = ()
    num_cached: int = 0
    samples: Mapping[str, SampleSpecs] = field(default_factory=dict)
    read_counts: ReadCounts = field(default_factory=ReadCounts)
    num_not_kept: int = 0
    why_not_kept: str = ""

    def __sizeof__(self) -> int:
        return object.__sizeof__(self) + sys.getsizeof(self.specs)


def measure_partition(partition: Partition, number: int, context: Context) -> Measured:
    """Specs and split counts of one partition.

    Raises
    ------
    UnreadableFileError
        When it cannot be read, unless the context says to skip.
    DataError
        When a label or a weight is not what it has to be.
    """
    try:
        with counting() as read_counts:
            labelled = label(partition, context, context.inputs, metered=True)
    except UnreadableFileError as error:
        if not context.skip:
            raise
        return lost(partition, error, read_counts)
    specs = measure(
        labelled.events,
        sample=partition.sample,
        ids=labelled.ids,
        meter=labelled.meter,
        branches=labelled.branches,
        transforms=context.transforms,
        classes=context.supervision.classes(labelled.learned),
    )
    specs = replace(specs, samples={partition.sample: sample_specs(labelled, context)})
    tell_progress(len(partition), partition.sample)
    return Measured(specs, {number: split_counts(labelled.split)}, read_counts=read_counts)


def sample_specs(labelled: Labelled, context: Context) -> SampleSpecs:
    """The counts and sums of some events of a sample."""
    sums = context.supervision.sums(
        labelled.learned, labelled.weights, labelled.split == 0, weights_read=labelled.weights_read
    )
    return replace(sums, cut_flow=labelled.cut_flow, removed=labelled.removed)


def lost(partition: Partition, error: UnreadableFileError, read_counts: ReadCounts) -> Measured:
    """What is known of a partition that cannot be read."""
    skipped = Skipped.of(partition, error.message)
    return Measured(Specs(), {}, (skipped,), read_counts=read_counts)


def split_counts(split: NDArray[np.uint8]) -> tuple[int, int, int]:
    """Events for training, validation and test."""
    train, validation, test = np.bincount(split, minlength=3).tolist()
    return train, validation, test


def merge_measured(parts: list[Measured]) -> Measured:
    """The merged specs and all counts of some parts."""
    specs = merge_all(part.specs for part in parts)
    sizes: dict[int, tuple[int, int, int]] = {}
    skipped: list[Skipped] = []
    num_cached = 0
    read_counts = sum((part.read_counts for part in parts), ReadCounts())
    for part in parts:
        sizes.update(part.split_counts)
        skipped.extend(part.skipped)
        num_cached += part.num_cached
    return Measured(
        specs,
        sizes,
        tuple(skipped),
        num_cached,
        read_counts=read_counts,
        num_not_kept=sum(part.num_not_kept for part in parts),
        why_not_kept=next((part.why_not_kept for part in parts if part.why_not_kept), ""),
    )


def make_block(
    partition: Partition, context: Context, sizes: tuple[int, int, int] | None = None
) -> Block:
    """The encoded block of one partition.

    ``sizes`` are its events for training, validation and test, as pass 1 found them. With them,
    a partition that cannot be read becomes a block of events without weight, if the context says
    to skip; the client is told.

    Raises
    ------
    DataError
        When other events are selected than in pass 1, or values are outside the extremes that it
        found in all of them.
    """
    assert context.encoding is not None  # set by the data set once it has specs
    try:
        with counting() as read_counts:
            labelled = label(partition, context, tuple(b.name for b in context.encoding.reads))
    except UnreadableFileError as error:
        if not context.skip or sizes is None:
            raise
        tell(context.topic, partition, sum(sizes), read_counts, error.message)
        return _lost_block(partition, context, sizes)
    if sizes is not None:
        _require_counts(partition, split_counts(labelled.split), sizes)
    tell(context.topic, partition, len(labelled.events), read_counts, "")
    tell_sample("blocks", len(partition), partition.sample)
    encoded = encode(labelled.events, context.encoding)
    if sizes is not None and context.whole_specs:
        _require_range(partition, labelled.events, context.encoding, encoded.counts.out_of_range)
    weights = labelled.weights * context.supervision.factors[partition.sample]
    return Block(
        encoded,
        labelled.learned,
        weights.astype(np.float32),
        labelled.ids,
        labelled.split,
    )


def _require_range(
    partition: Partition, events: Events, encoding: Encoding, outside: Mapping[str, int]
) -> None:
    """No value of events that the specs were measured on can be outside of their extremes.

    Other processors round logarithms and angles otherwise, in the last bits.
    """
    if not outside:
        return
    scalings = dict(zip(encoding.layout.branches, encoding.scalings, strict=True))
    far = {name: _num_far(events.contents[name], scalings[name]) for name in outside}
    far = {name: number for name, number in far.items() if number}
    if not far:
        return
    branch, number = next(iter(far.items()))
    more = f" and {len(far) - 1} more" if len(far) > 1 else ""
    raise DataError.in_tree(
        partition,
        f"{partition}: {number:,} values of branch {branch!r}{more} are outside the extremes that "
        f"the specs pass found in these events: {_CHANGED}",
        entries=(partition.entry_start, partition.entry_stop),
        branch=branch,
    )


def _num_far(content: NDArray[Any], scaling: Scaling) -> int:
    """Values that are further outside of the extremes than rounding can move them."""
    rounding = ROUNDING * max(abs(scaling.low), abs(scaling.high))
    values = content[~scaling.is_missing(content)]
    if scaling.absent is not None:
        values = values[values != scaling.absent]
    is_far = (values < scaling.low - rounding) | (values > scaling.high + rounding)
    return int(is_far.sum())


def _require_counts(
    partition: Partition, recount: tuple[int, int, int], sizes: tuple[int, int, int]
) -> None:
    if recount == sizes:
        return
    then, now = (", ".join(f"{number:,}" for number in each) for each in (sizes, recount))
    raise DataError.in_tree(
        partition,
        f"{partition}: the specs pass selected {sum(sizes):,} events ({then} for training, "
        f"validation and test), and now they are {sum(recount):,} ({now}): {_CHANGED}",
        entries=(partition.entry_start, partition.entry_stop),
        counted=sizes,
        found=recount,
    )


def _lost_block(partition: Partition, context: Context, sizes: tuple[int, int, int]) -> Block:
    """The block of a partition that cannot be read: as many events as planned, of weight 0."""
    assert context.encoding is not None  # the caller has looked
    num_events = sum(sizes)
    branches = {branch.name: branch for branch in context.encoding.reads}
    encoded = encode(empty_events(branches, num_events), context.encoding)
    ids = event_ids(partition.identity, partition.entry_start, partition.entry_start + num_events)
    return Block(
        replace(encoded, counts=EncodeCounts()),
        context.supervision.unknown(num_events, partition.sample),
        np.zeros(num_events, dtype=np.float32),
        ids,
        np.repeat(np.arange(3, dtype=np.uint8), sizes),
    )
