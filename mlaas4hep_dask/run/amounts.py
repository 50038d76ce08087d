"""How much there is to train on: the events of every rank, and the bytes of all blocks."""

from __future__ import annotations

import math

from mlaas4hep_dask.dataset import Dataset
from mlaas4hep_dask.errors import TrainingError
from mlaas4hep_dask.journal import SPLITS
from mlaas4hep_dask.train.assign import Assignment, assign, follow

WINDOW_BYTES = 128 * 2**20  # dense rows of one window; a rank holds two


def assignments(
    dataset: Dataset, window_bytes: int = WINDOW_BYTES
) -> tuple[Assignment, Assignment, Assignment]:
    """The events of the training, validation and test splits of every rank.

    Parameters
    ----------
    dataset : Dataset
        Tells how many events there are.
    window_bytes : int
        Dense rows of one window of training events; a rank holds two.

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
        window_events=max(window_bytes // row_bytes, 1),
        seed=config.seed,
    )
    # Their rows are used once, so their windows can be smaller.
    smaller = window_bytes // 4 // row_bytes
    validation, test = (
        follow(train, splits[0], rest, window_events=smaller) for rest in splits[1:]
    )
    return train, validation, test


def packed_bytes(dataset: Dataset) -> int:
    """Bytes of all blocks in packed form, from the specs."""
    specs = dataset.specs()
    num_events = sum(sample.num_selected for sample in dataset.samples().values())
    values = sum(entry.moments.num_values for entry in specs.branches.values())
    per_event = 4 * values / max(specs.num_events, 1) + 8 * (len(specs.multiplicities) + 4)
    return round(num_events * per_event)
