"""What becomes of a training whose events cannot all be read."""

from __future__ import annotations

import logging

from mlaas4hep_dask.dataset import Dataset
from mlaas4hep_dask.dataset.blocks import BlockPlan
from mlaas4hep_dask.dataset.lost import lost_samples, require_events

logger = logging.getLogger(__name__)


def require_samples(dataset: Dataset, blocks: BlockPlan, told: dict[str, int]) -> None:
    """Stop where a class is lost; warn where its other samples are left.

    Parameters
    ----------
    dataset : Dataset
        Which events are lost.
    blocks : BlockPlan
        The blocks of the training.
    told : dict of str to int
        Samples of which none was learned, and their training events: those that were warned of,
        to which new ones are added.

    Raises
    ------
    DataError
        When no event of a class could be read.
    """
    lost = lost_samples(dataset.lost(), blocks.partitions, blocks.split_counts)
    if not lost:
        return
    require_events(lost, dataset.config.classes, dataset.class_sums())
    for sample, entries in lost.items():
        if sample not in told:
            told[sample] = sum(entry.num_events for entry in entries)
            logger.warning(
                "sample %s: none of its training events could be read; the network learns "
                "from the other samples alone (%s)",
                sample,
                entries[0].skipped.reason,
            )
