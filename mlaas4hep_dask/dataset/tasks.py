"""What workers do with one partition: measure it, or make its block."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import numpy as np
from distributed import get_worker
from numpy.typing import NDArray

from mlaas4hep_dask.dataset.plan import Skipped
from mlaas4hep_dask.dataset.prepare import Preparation, prepare, read_raw
from mlaas4hep_dask.derive.recipe import Prepared
from mlaas4hep_dask.encode import Block, Encoding, encode
from mlaas4hep_dask.encode.encoded import encode_rows
from mlaas4hep_dask.encode.split import event_ids, split_of
from mlaas4hep_dask.errors import UnreadableFileError
from mlaas4hep_dask.reader import Partition
from mlaas4hep_dask.specs import SampleSpecs, Specs
from mlaas4hep_dask.specs.measure import measure
from mlaas4hep_dask.specs.specs import merge_all
from mlaas4hep_dask.specs.transforms import Transform

PROGRESS = "mlaas4hep_dask-progress"  # topic of Dask events: numbers of events done
NUM_BINS = 50

T = TypeVar("T")


@dataclass(frozen=True)
class Context:
    """What all partitions of a data set share.

    Parameters
    ----------
    preparation : Preparation
        What is read, and how it becomes the inputs and what objects are sorted by.
    inputs : tuple of str
        Names of the inputs.
    labels, weights : mapping
        By sample: the label and the weight of each event.
    fractions : tuple of float
        Split fractions for training, validation and test.
    seed : int
        Seed of the split.
    skip : bool
        Leave out what cannot be read instead of stopping.
    transforms : mapping
        By input: the logarithm that its normalisation takes, which is measured too.
    encoding : Encoding or None
        Set once the specs are known.
    """

    preparation: Preparation
    inputs: tuple[str, ...]
    labels: Mapping[str, int]
    weights: Mapping[str, float]
    fractions: tuple[float, float, float]
    seed: int
    skip: bool
    transforms: Mapping[str, Transform] = field(default_factory=dict)
    encoding: Encoding | None = None


@dataclass(frozen=True)
class Measured:
    """Specs of some partitions.

    Parameters
    ----------
    specs : Specs
        Merged specs.
    counts : mapping of int to tuple of int
        By number of the partition: events for training, validation and test.
    skipped : tuple of Skipped
        Partitions that could not be read.
    num_cached : int
        Events whose specs came from the cache; they were not read.
    samples : mapping of str to SampleSpecs
        By sample: all events that the data set holds; filled once all parts are merged.
    """

    specs: Specs
    counts: Mapping[int, tuple[int, int, int]]
    skipped: tuple[Skipped, ...] = ()
    num_cached: int = 0
    samples: Mapping[str, SampleSpecs] = field(default_factory=dict)


def measure_partition(partition: Partition, number: int, context: Context) -> Measured:
    """Specs and split counts of one partition.

    Raises
    ------
    UnreadableFileError
        When it cannot be read, unless the context says to skip.
    """
    try:
        prepared = prepare(partition, context.preparation, context.inputs)
    except UnreadableFileError as error:
        if not context.skip:
            raise
        return lost(partition, error)
    weight = context.weights[partition.sample]
    events = prepared.events
    ids = ids_of(partition, prepared)
    specs = measure(
        events,
        sample=partition.sample,
        ids=ids,
        num_read=len(partition),
        sum_weights=weight * events.num_events,
        cut_flow=prepared.cut_flow,
        removed=prepared.removed,
        transforms=context.transforms,
    )
    tell_progress(len(partition))
    return Measured(specs, {number: split_counts(ids, context)})


def lost(partition: Partition, error: UnreadableFileError) -> Measured:
    """What is known of a partition that cannot be read."""
    start, stop = partition.entry_start, partition.entry_stop
    skipped = Skipped(partition.file, partition.sample, start, stop, error.message)
    return Measured(Specs(), {}, (skipped,))


def split_counts(ids: NDArray[np.uint64], context: Context) -> tuple[int, int, int]:
    """Events for training, validation and test among those with the given ids."""
    split = split_of(ids, context.fractions, seed=context.seed)
    train, validation, test = np.bincount(split, minlength=3).tolist()
    return train, validation, test


def ids_of(partition: Partition, prepared: Prepared | None) -> NDArray[np.uint64]:
    """Ids, shape (selected events, 2), of a partition's selected events; of all without any."""
    ids = event_ids(partition.uuid, partition.entry_start, partition.entry_stop)
    if prepared is None or prepared.selected is None:
        return ids
    return ids[prepared.selected]


def merge_measured(parts: list[Measured]) -> Measured:
    """The merged specs and all counts of some parts."""
    specs = merge_all(part.specs for part in parts)
    counts: dict[int, tuple[int, int, int]] = {}
    skipped: list[Skipped] = []
    num_cached = 0
    for part in parts:
        counts.update(part.counts)
        skipped.extend(part.skipped)
        num_cached += part.num_cached
    return Measured(specs, counts, tuple(skipped), num_cached)


def make_block(partition: Partition, context: Context) -> Block:
    """The encoded block of one partition."""
    assert context.encoding is not None  # set by the data set once it has specs
    prepared = prepare(partition, context.preparation)
    encoded = encode(prepared.events, context.encoding)
    ids = ids_of(partition, prepared)
    num_events = len(encoded)
    return Block(
        encoded,
        np.full(num_events, context.labels[partition.sample], dtype=np.float32),
        np.full(num_events, context.weights[partition.sample], dtype=np.float32),
        ids,
        split_of(ids, context.fractions, seed=context.seed),
    )


def raw_event(partition: Partition, preparation: Preparation) -> dict[str, Any] | None:
    """The first selected event as a client of a server would send it; None if there is none."""
    raw = read_raw(partition, preparation).events
    prepared = preparation.recipe.prepare(raw, preparation.keep)
    if not len(prepared.events):
        return None
    place = 0 if prepared.selected is None else int(np.flatnonzero(prepared.selected)[0])
    served = preparation.recipe.steps(preparation.keep, select=False).read
    event: dict[str, Any] = {}
    for branch in raw.branches:
        if branch.name not in served:
            continue
        start, stop = place, place + 1
        if branch.collection is not None:
            start, stop = raw.offsets[branch.collection][place : place + 2].tolist()
        values = [
            value if np.isfinite(value) else None
            for value in raw.contents[branch.name][start:stop].tolist()
        ]
        event[branch.name] = values if branch.collection is not None else values[0]
    return event


def distributions(partition: Partition, context: Context) -> Distributions:
    """Histograms of all inputs of one partition, before and after encoding."""
    assert context.encoding is not None  # set by the data set once it has specs
    events = prepare(partition, context.preparation).events
    encoded = encode_rows(events, context.encoding)
    raw: dict[str, Histogram] = {}
    after: dict[str, Histogram] = {}
    for (name, values), scaling in zip(
        encoded.contents().items(), context.encoding.scalings, strict=True
    ):
        raw[name] = _histogram(events.contents[name], scaling.low, scaling.high)
        after[name] = _histogram(values, scaling.encoded_low, scaling.encoded_high)
    return Distributions(len(events), context.labels[partition.sample], raw, after)


class Histogram(NamedTuple):
    """Counts, shape (bins,), in equal bins from ``low`` to ``high``."""

    low: float
    high: float
    counts: NDArray[np.int64]


@dataclass(frozen=True)
class Distributions:
    """Histograms of the inputs over some events of one label, before and after encoding."""

    num_events: int
    label: int
    raw: Mapping[str, Histogram]
    encoded: Mapping[str, Histogram]


def _histogram(values: NDArray[Any], low: float, high: float) -> Histogram:
    if high <= low:
        low, high = low - 0.5, high + 0.5
    with np.errstate(invalid="ignore", over="ignore"):
        bins = (values.astype(np.float64) - low) * (NUM_BINS / (high - low))
        inside = (bins >= 0) & (bins <= NUM_BINS)  # False for NaN
        chosen = np.minimum(bins[inside], NUM_BINS - 1).astype(np.int64)
    return Histogram(low, high, np.bincount(chosen, minlength=NUM_BINS))


def tell_progress(num_events: int) -> None:
    """Tell the client that a task has dealt with some events."""
    try:
        worker = get_worker()
    except ValueError:  # not on a worker
        return
    worker.log_event(PROGRESS, num_events)


def same(value: T) -> T:
    """The value; a task that keeps it on a worker for others to refer to."""
    return value
