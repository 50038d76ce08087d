"""How much there is to train on: the events of every rank, and the bytes of all blocks."""

from __future__ import annotations

import math
from collections.abc import Collection
from itertools import chain

import numpy as np

from mlaas4hep_dask.dataset import Dataset
from mlaas4hep_dask.dataset.blocks import BlockPlan
from mlaas4hep_dask.errors import TrainingError
from mlaas4hep_dask.journal import SPLITS
from mlaas4hep_dask.train.assign import Assignment, Assignments, assign, follow
from mlaas4hep_dask.train.shards import part_of

WINDOW_BYTES = 128 * 2**20  # dense rows of one window of all ranks; each holds its part of two
FEW_EVENTS = 4  # in a batch of a rank
ROUND_BYTES = 512 * 2**20  # packed blocks of one round, where not all are kept; a rank holds two


def assignments(dataset: Dataset, plan: BlockPlan, window_bytes: int = WINDOW_BYTES) -> Assignments:
    """The events of the training, validation and test splits of every rank.

    Parameters
    ----------
    dataset : Dataset
        Tells how many events there are.
    plan : BlockPlan
        The blocks.
    window_bytes : int
        Dense rows of one window of training events of all ranks together, if a batch has not more.

    Raises
    ------
    TrainingError
        When a split has no event.
    """
    config = dataset.config
    sizes = dataset.split_counts()
    row_bytes = 4 * max(math.prod(dataset.encoding().row_shape), 1)
    if config.objective.gives_rows:
        row_bytes *= 2  # masks, and rows that the network gives, stand beside them
    splits = [[(sample, events[place]) for sample, events in sizes] for place in range(3)]
    for name, split in zip(SPLITS, splits, strict=True):
        if sum(events for _, events in split) == 0:
            raise TrainingError(f"the {name} split has no event; there are too few events")
    train = assign(
        splits[0],
        ranks=config.training.ranks,
        batch_size=config.training.batch_size,
        window_events=max(window_bytes // row_bytes, config.training.batch_size),
        seed=config.seed.order,
        files=[(part.file, part.tree) for part in plan.partitions],
    )
    # Their rows are used once, so their windows can be smaller.
    smaller = window_bytes // 4 // row_bytes
    validation, test = (
        follow(train, splits[0], rest, window_events=smaller) for rest in splits[1:]
    )
    return Assignments(train, validation, test)


def batches(train: Assignment) -> tuple[int, int]:
    """Events of a rank in its usual step, and in the smallest of an epoch."""
    usual = math.ceil(train.batch_size / train.num_ranks)
    smallest = usual
    windows: Collection[int] = {0, train.num_windows - 1}  # all between are about as large
    if usual <= FEW_EVENTS:  # one less may be none, or too few for a BatchNorm
        windows = range(train.num_windows)
    for window in windows:
        deal = train.deal(window)
        for rank in range(train.num_ranks):
            sizes = np.diff(deal.rows(rank)[1])
            smallest = min(smallest, int(sizes.min(initial=usual)))
    return usual, smallest


def owners(assignments: Assignments) -> dict[int, int]:
    """By block: the rank that has most of its training events, each in turn where it is halved."""
    num = assignments.train.num_ranks
    by_block: dict[int, dict[int, int]] = {}
    for assignment in assignments:
        for shard, samples in enumerate(assignment.pieces):
            parts = [(rank, part_of(rank, shard, num)) for rank in range(num)]
            for piece in chain.from_iterable(samples):
                if assignment is assignments.train or piece.block not in by_block:
                    events = by_block.setdefault(piece.block, {})
                    for rank, part in parts:
                        if part:
                            events[rank] = events.get(rank, 0) + part * len(piece)
    return {
        block: max(events, key=lambda rank: (events[rank], (rank - block) % num))
        for block, events in by_block.items()
    }


def largest_part(assignments: Assignments, plan: BlockPlan) -> float:
    """The part of all events that lies in the blocks of the rank that needs most of them."""
    sizes = [sum(counts) for counts in plan.split_counts]
    by_rank = [
        sum(sizes[block] for block in set().union(*(each.blocks(rank) for each in assignments)))
        for rank in range(assignments.train.num_ranks)
    ]
    return max(by_rank) / max(sum(sizes), 1)


def num_rounds(packed_bytes: float, room: float, round_bytes: int = ROUND_BYTES) -> int:
    """Rounds of an epoch for a rank with so many bytes of packed blocks, and room for so many.

    Two rounds fill half of the room; the other half is for events of splits that are kept.
    """
    return max(1, math.ceil(packed_bytes / max(min(round_bytes, room / 4), 1)))


def packed_bytes(dataset: Dataset) -> int:
    """Bytes of all blocks in packed form, from the specs."""
    specs = dataset.specs()
    num_events = sum(sample.num_selected for sample in dataset.samples().values())
    values = sum(entry.moments.num_values for entry in specs.branches.values())
    per_event = 4 * values / max(specs.num_events, 1) + 8 * (len(specs.multiplicities) + 4)
    return round(num_events * per_event)
