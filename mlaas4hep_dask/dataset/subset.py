"""Which clusters of a data set are measured when a fraction is enough."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from mlaas4hep_dask.reader import Partition, PlannedFile

SMALLEST, LARGEST = 2_500, 100_000  # events in a unit that is read or left
UNIT_BYTES = 64 * 2**20


def subset_units(
    files: Sequence[PlannedFile],
    entries: Mapping[tuple[str, str], int],
    *,
    fraction: float,
    seed: int,
) -> list[Partition]:
    """Entry ranges that make up about ``fraction`` of every sample, at least one of each.

    A unit is a cluster, or several small ones. Those of a sample are lined up file after file,
    and every k-th is taken, so that all files have their share. Which they are depends on seed,
    files and inputs, but neither on the order of the files nor on partitions.

    Parameters
    ----------
    files : sequence of PlannedFile
        All files.
    entries : mapping of (str, str) to int
        By file and tree: how many of its entries belong to the data set.
    fraction : float
        Between 0 and 1.
    seed : int
        Seed of the choice.
    """
    subset: list[Partition] = []
    for sample in dict.fromkeys(file.sample for file in files):
        of_sample = [
            file
            for file in files
            if file.sample == sample and entries.get((file.file, file.tree), 0)
        ]
        of_sample.sort(key=lambda file: (_hash(seed, file.uuid), file.file, file.tree))
        units = [unit for file in of_sample for unit in _units(file, entries[file.file, file.tree])]
        num_chosen = max(1, round(fraction * len(units)))
        start = _hash(seed, *(file.uuid for file in of_sample)) / 2**64
        places = ((np.arange(num_chosen) + start) * len(units) / num_chosen).astype(int)
        subset += [units[place] for place in places]
    return subset


def _units(file: PlannedFile, num_entries: int) -> list[Partition]:
    longest = int(np.diff([0, *file.clusters]).max(initial=0))
    max_events = min(max(longest, SMALLEST), LARGEST)
    return file.partitions(target_bytes=UNIT_BYTES, max_events=max_events, num_entries=num_entries)


def _hash(seed: int, *names: str) -> int:
    text = "\n".join((str(seed), *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")
