"""The tasks of pass 1: measure files, or take their specs from the cache; count their events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mlaas4hep_dask.dataset.cache import Entry, load, renamed, store
from mlaas4hep_dask.dataset.progress import tell_progress
from mlaas4hep_dask.dataset.tasks import (
    Measured,
    lost,
    measure_partition,
    merge_measured,
    sample_specs,
    split_counts,
)
from mlaas4hep_dask.encode.split import event_ids, split_of
from mlaas4hep_dask.errors import UnreadableFileError
from mlaas4hep_dask.inputs.context import Context
from mlaas4hep_dask.inputs.labelled import label
from mlaas4hep_dask.reader import Partition, counting
from mlaas4hep_dask.specs import SampleSpecs, Specs


@dataclass(frozen=True, slots=True)
class Piece:
    """Consecutive partitions of one file.

    Parameters
    ----------
    partitions : tuple of Partition
        What to measure.
    first : int
        Number of the first of them.
    entry : str or None
        Where the cache keeps, or will keep, the specs of these partitions.
    is_cached : bool
        True when the entry was there when the work was planned.
    """

    partitions: tuple[Partition, ...]
    first: int
    entry: str | None = None
    is_cached: bool = False

    def __len__(self) -> int:
        return len(self.partitions)

    def divided(self, size: int) -> list[Piece]:
        """Pieces of at most ``size`` partitions, without the entry of the whole."""
        return [
            Piece(self.partitions[place : place + size], self.first + place)
            for place in range(0, len(self), size)
        ]


def measure_pieces(pieces: Sequence[Piece], context: Context) -> Measured:
    """Specs and split counts of some pieces, one partition after the other."""
    return merge_measured([_measure(piece, context) for piece in pieces])


def _measure(piece: Piece, context: Context) -> Measured:
    if piece.is_cached and (measured := _from_cache(piece, context)) is not None:
        return measured
    parts = [
        measure_partition(partition, number, context)
        for number, partition in enumerate(piece.partitions, piece.first)
    ]
    return finish_piece(parts, piece)


def finish_piece(parts: list[Measured], piece: Piece) -> Measured:
    """The merged parts of a piece, which the cache keeps if all of it could be read."""
    measured = merge_measured(parts)
    if piece.entry is not None and (why := keep_piece(measured, piece)):
        return replace(measured, num_not_kept=measured.num_not_kept + 1, why_not_kept=why)
    return measured


def keep_piece(measured: Measured, piece: Piece) -> str:
    """Keep a piece in the cache if all of it could be read; why that failed, else empty."""
    assert piece.entry is not None  # the caller has looked
    if measured.skipped:
        return ""
    sizes = [measured.split_counts[number] for number in sorted(measured.split_counts)]
    return store(Path(piece.entry), Entry(measured.specs, tuple(sizes)))


def _from_cache(piece: Piece, context: Context) -> Measured | None:
    assert piece.entry is not None  # it is cached
    entry = load(Path(piece.entry))
    if entry is None:
        return None
    first = piece.partitions[0]
    specs = renamed(entry.specs, sample=first.sample)
    if not context.supervision.targets:  # the sample may have had another label
        specs = specs.of_class(context.supervision.class_of(first.sample))
    num_events = sum(map(len, piece.partitions))
    if context.preparation.counting() is None:  # it may be that of another split
        sizes = {
            number: _split_of_all(partition, context)
            for number, partition in enumerate(piece.partitions, piece.first)
        }
    else:  # the entry is that of these partitions and this split; counting again would read
        sizes = dict(enumerate(entry.split_counts, piece.first))
    tell_progress(num_events, first.sample)
    return Measured(specs, sizes, num_cached=num_events)


def count_events(pieces: Sequence[Piece], context: Context) -> Measured:
    """Counts of the events of pieces and their sums of weights, without specs of branches.

    Only what cuts, labels, targets and weights need is read; nothing, if there are none.
    """
    return merge_measured(
        [
            _counted(partition, number, context)
            for piece in pieces
            for number, partition in enumerate(piece.partitions, piece.first)
        ]
    )


def _counted(partition: Partition, number: int, context: Context) -> Measured:
    only_cuts = context.preparation.counting()
    if only_cuts is None and not context.supervision.names:
        sizes = _split_of_all(partition, context)
        sample = SampleSpecs(len(partition), sum(sizes), float(sum(sizes)))
        return Measured(Specs(samples={partition.sample: sample}), {number: sizes})
    try:
        with counting() as read_counts:
            labelled = label(partition, context, () if only_cuts is None else only_cuts.keep)
    except UnreadableFileError as error:
        if not context.skip:
            raise
        return lost(partition, error, read_counts)
    specs = Specs(samples={partition.sample: sample_specs(labelled, context)})
    return Measured(specs, {number: split_counts(labelled.split)}, read_counts=read_counts)


def _split_of_all(partition: Partition, context: Context) -> tuple[int, int, int]:
    """Split counts of all events of a partition, which need not be read for it."""
    ids = event_ids(partition.identity, partition.entry_start, partition.entry_stop)
    return split_counts(split_of(ids, context.fractions, seed=context.seed))
