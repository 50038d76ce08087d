"""Makes examples of partitions: real events to try a network on and to keep with its scores."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np
from distributed import Future
from numpy.typing import NDArray

from mlaas4hep_dask.config import Encoding as EncodeKeys
from mlaas4hep_dask.config import Image
from mlaas4hep_dask.dataset.plan import Plan
from mlaas4hep_dask.dataset.tasks import measure_partition, merge_measured
from mlaas4hep_dask.encode import Encoding, encode
from mlaas4hep_dask.encode.examples import Examples, joined
from mlaas4hep_dask.encode.raw import raw_columns
from mlaas4hep_dask.errors import DataError, UnreadableFileError
from mlaas4hep_dask.events import Branch, Events
from mlaas4hep_dask.inputs.context import Context
from mlaas4hep_dask.inputs.labelled import label
from mlaas4hep_dask.inputs.normalise import encode_options
from mlaas4hep_dask.inputs.preflight import Preflight
from mlaas4hep_dask.inputs.prepare import HEAD_EVENTS, Preparation, applied, read_raw
from mlaas4hep_dask.inputs.weighting import fitted
from mlaas4hep_dask.objective import Objective
from mlaas4hep_dask.reader import Partition
from mlaas4hep_dask.specs import Specs
from mlaas4hep_dask.waiting import ClusterHandle

NUM_EXAMPLES = 1_000  # events of all samples together
EXAMPLE_BYTES = 8 * 1024**2  # and their rows and masks, which travel with a task
MAX_HEADS = 10  # beginnings of partitions, of which examples are made together
NUM_SENT = 200  # of them as a client would send them
SENT_VALUES = 100_000  # and their values


def num_examples(encoding: Encoding, num_samples: int) -> tuple[int, int]:
    """Of each of so many samples: how many events, and how many as a client would send them."""
    of_row = 5 * max(math.prod(encoding.row_shape), 1)  # bytes of values and mask
    num_events = min(NUM_EXAMPLES, EXAMPLE_BYTES // of_row)
    num_sent = min(NUM_SENT, SENT_VALUES // max(encoding.layout.num_columns, 1))
    return max(num_events // num_samples, 8), max(num_sent // num_samples, 8)


def examples_of(
    partition: Partition, context: Context, num_events: int, num_sent: int
) -> Examples | None:
    """The first selected events of a partition; None if there are none.

    Parameters
    ----------
    partition : Partition
        Entry range of a file.
    context : Context
        With the encoding.
    num_events, num_sent : int
        How many events, and how many of them as a client would send them: those without an object
        or a value, and those with the largest and smallest, come first.

    Raises
    ------
    UnreadableFileError
        When the partition cannot be read.
    """
    encoding = context.encoding
    assert encoding is not None  # the data set and the check both set it
    names = tuple(branch.name for branch in encoding.reads)
    labelled = label(partition, context, names)
    if not len(labelled.events):
        return None
    rows = np.arange(min(len(labelled.events), num_events))
    encoded = encode(labelled.events, encoding)
    # A value that is too large to encode is an error of its own.
    rows = rows[np.isfinite(encoded.dense(rows)).reshape(rows.size, -1).all(axis=1)]
    factor = context.supervision.factors.get(partition.sample, 1.0)
    # What gives labels and weights is no part of what a client sends.
    preparation = context.preparation.fewer(names)
    return Examples(
        *encoded.inputs(rows),
        labelled.learned[rows],
        (labelled.weights[rows] * factor).astype(np.float32),
        raw_columns(labelled.events, encoding)[rows] if encoding.image is None else None,
        tuple(_sent(partition, preparation, num_sent)),
    )


def gather_examples(
    cluster: ClusterHandle, parts: Iterable[Partition], context: Context
) -> Examples:
    """Examples of every sample, made by tasks on a cluster.

    Parameters
    ----------
    cluster : ClusterHandle
        Where the tasks run.
    parts : iterable of Partition
        Those of which events are selected.
    context : Context
        With the encoding.

    Raises
    ------
    DataError
        When none can be read any more.
    """
    assert context.encoding is not None  # blocks have one
    by_sample: dict[str, list[Partition]] = {}
    for part in parts:
        by_sample.setdefault(part.sample, []).append(part)
    num_events, num_sent = num_examples(context.encoding, len(by_sample))

    def submit(part: Partition, present: Examples | None = None) -> Future:
        """A task that makes what is lacking beside those that are present."""
        has, sent = (0, 0) if present is None else (len(present), len(present.sent))
        arguments = (part, context, num_events - has, max(num_sent - sent, 0))
        return cluster.submit(examples_of, *arguments, group="readers", pure=False)

    # The first events of a sample most likely have some that are selected.
    heads = [submit(_head(of_sample[0])) for of_sample in by_sample.values()]
    errors: list[UnreadableFileError] = []
    of_samples = []
    for head, of_sample in zip(heads, by_sample.values(), strict=True):
        present: Examples | None = None
        beginnings = [_head(part) for part in of_sample[:MAX_HEADS]]
        for number, part in enumerate(chain(beginnings, of_sample), start=1):
            task = head if number == 1 else submit(part, present)
            try:
                examples = cluster.result(task, "examples of events", group="readers")
            except UnreadableFileError as error:  # the events of another file do as well
                if not context.skip:
                    raise
                errors.append(error)
                continue
            if examples is not None:
                present = examples if present is None else joined([present, examples])
            if present is not None and (len(present) >= num_events or number >= len(beginnings)):
                break
        if present is not None:
            of_samples.append(present)
    if not of_samples:
        why, file = (f": {errors[0].message}", errors[0].facts["file"]) if errors else ("", "")
        raise DataError(
            f"none of the events that were selected can be read any more{why}", file=file
        )
    return joined(of_samples)


def _head(part: Partition) -> Partition:
    """The first events of a partition."""
    return replace(part, entry_stop=min(part.entry_stop, part.entry_start + HEAD_EVENTS))


def head_examples(
    checked: Preflight, plan: Plan, encode: EncodeKeys, image: Image | None
) -> tuple[Examples, Encoding, Objective, Specs] | None:
    """Examples of the first events of every sample, encoded as if all others were like these.

    It needs no cluster: ``--check`` tries a network on them.

    Parameters
    ----------
    checked : Preflight
        From `preflight`.
    plan : Plan
        From `check_files`.
    encode : Encoding
        The section of the configuration.
    image : Image or None
        What events become; None for rows.

    Returns
    -------
    (Examples, Encoding, Objective, Specs) or None
        With the specs that the encoding follows from. None when no event is selected among the
        first.

    Raises
    ------
    DataError
        When a label or a weight is not what it has to be.
    """
    heads: dict[str, Partition] = {}
    for part in plan.partitions:
        heads.setdefault(part.sample, _head(part))
    context = plan.context
    parts = list(heads.values())
    measured = merge_measured(
        [measure_partition(part, number, context) for number, part in enumerate(parts)]
    )
    filled = [parts[number] for number, sizes in measured.split_counts.items() if sum(sizes)]
    if not filled:
        return None
    specs = measured.specs if checked.specs is None else checked.specs
    options = encode_options(encode, image, specs, plan.keys, checked.normalisers)
    encoding = Encoding.from_specs(specs, **options)
    if encoding.image is None and not encoding.columns():
        return None
    context = replace(context, encoding=encoding)
    num_events, _ = num_examples(encoding, len(filled))
    of_parts = [examples_of(part, context, num_events, 0) for part in filled]
    examples = joined([each for each in of_parts if each is not None])
    return examples, encoding, _likely_objective(context, measured.specs, encoding), specs


def _likely_objective(context: Context, specs: Specs, encoding: Encoding) -> Objective:
    """What a network learns to give; a target that few events do not tell is left as it is."""
    try:
        return fitted(context.supervision, specs.samples, encoding)
    except DataError:
        return context.supervision.objective.unfitted(tuple(encoding.columns()))


def _sent(
    partition: Partition, preparation: Preparation, num_sent: int
) -> Iterator[dict[str, Any]]:
    """Selected events of a partition as JSON objects, the unusual ones first."""
    if num_sent == 0:
        return
    raw = read_raw(partition, preparation)
    selected = applied(raw, preparation).selected
    if raw.selected is not None and selected is not None:  # of those that a function returned
        selected = selected[raw.selected]
    events = raw.events
    places = np.arange(len(events)) if selected is None else np.flatnonzero(selected)
    names = preparation.recipe.steps(preparation.keep, select=False).read
    branches = [branch for branch in events.branches if branch.name in names]
    for place in _unusual_first(events, branches, places)[:num_sent].tolist():
        yield _as_sent(events, branches, place)


def _unusual_first(
    events: Events, branches: Sequence[Branch], places: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Events that lack something or hold an extreme, one of each kind in turn, then the others."""
    unusual: dict[int, None] = {}
    for branch in branches:
        values = events.contents[branch.name].astype(np.float64)
        if branch.collection is None:
            low = high = values
            lacks = ~np.isfinite(values)
        else:
            offsets = events.offsets[branch.collection]
            lacks = np.diff(offsets) == 0
            bad = np.flatnonzero(~np.isfinite(values))
            lacks[np.searchsorted(offsets, bad, side="right") - 1] = True
            low, high = (_by_event(values, offsets, way) for way in (np.minimum, np.maximum))
        extremes = places[lacks[places]][:1].tolist()
        finite = places[np.isfinite(low[places]) & np.isfinite(high[places])]
        if finite.size:
            extremes += [int(finite[low[finite].argmin()]), int(finite[high[finite].argmax()])]
        unusual.update(dict.fromkeys(extremes))
    rest = places[~np.isin(places, list(unusual))]
    return np.concatenate([np.array(list(unusual), dtype=np.int64), rest])


def _by_event(
    values: NDArray[np.float64], offsets: NDArray[np.int64], way: np.ufunc
) -> NDArray[np.float64]:
    """Smallest or largest value of each event, NaN where it has none."""
    results = np.full(len(offsets) - 1, np.nan)
    filled = np.flatnonzero(np.diff(offsets))
    if filled.size:
        results[filled] = way.reduceat(values, offsets[filled])
    return results


def _as_sent(events: Events, branches: Sequence[Branch], place: int) -> dict[str, Any]:
    """One event as a client would send it."""
    event: dict[str, Any] = {}
    for branch in branches:
        start, stop = place, place + 1
        if branch.collection is not None:
            start, stop = events.offsets[branch.collection][place : place + 2].tolist()
        values = [
            value if np.isfinite(value) else None
            for value in events.contents[branch.name][start:stop].tolist()
        ]
        event[branch.name] = values if branch.collection is not None else values[0]
    return event
