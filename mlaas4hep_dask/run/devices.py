"""On what the ranks of a run compute, and what is told of it."""

from __future__ import annotations

import logging

from mlaas4hep_dask.devices import Choice, Device, Gpus, choose, gpus_here
from mlaas4hep_dask.gang import Gang

logger = logging.getLogger(__name__)


def devices_of(gang: Gang, wish: Device) -> Choice:
    """What each member computes on.

    Raises
    ------
    TrainingError
        When it is to be GPUs, and a member has none.
    """
    seen = [Gpus()] * gang.size
    if wish != "cpu":
        seen = gang.on_each(gpus_here, [()] * gang.size, "looking for GPUs")
    choice = choose(wish, seen, [gang.cluster.name(worker) for worker in gang.workers])
    logger.info("ranks compute on %s: %s", ", ".join(choice.devices), choice.words)
    if choice.caution:
        logger.warning("%s", choice.caution)
    return choice
