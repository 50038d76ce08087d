"""Where blocks stay between epochs: in memory, on disks, or nowhere; and copies of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distributed import Future

from mlaas4hep_dask.dataset.blocks import BlockPlan
from mlaas4hep_dask.gang.copies import (
    folder_of_run,
    leave_word,
    make_folder,
    place_of_copies,
)
from mlaas4hep_dask.gang.diskcache import free_bytes, remove_shared
from mlaas4hep_dask.gang.gang import Gang
from mlaas4hep_dask.gang.source import KeptBlocks
from mlaas4hep_dask.places import STORAGES, Storage


@dataclass(frozen=True)
class Shares:
    """What part of their machines blocks may fill.

    Parameters
    ----------
    memory : float
        Of the memory of all workers, or of a member.
    disk : float
        Of the free disk of a worker.
    copies : float
        Of the free room where copies outlive workers, which others use too.
    """

    memory: float = 0.4
    disk: float = 0.5
    copies: float = 0.2


SHARES = Shares()


@dataclass(frozen=True)
class Keeping:
    """What was decided of some blocks, as long as it is held.

    Parameters
    ----------
    place : {"memory", "disk", "none"}
        Where they stay.
    blocks : KeptBlocks
        For the members.
    room : float
        Bytes of packed blocks that a member may hold.
    held : list of Future
        Those in memory.
    copies : Path or None
        Where the run may have copies of its own.
    """

    place: Storage
    blocks: KeptBlocks
    room: float
    held: Sequence[Future] = ()
    copies: Path | None = None

    def __str__(self) -> str:
        return f"{self.place}, in {self.blocks.folder}" if self.blocks.folder else self.place

    def remove_copies(self, gang: Gang) -> None:
        """Remove what lies in a folder that all workers see; a run that has ended needs it not."""
        if self.copies is not None:  # workers may see less of it by now
            remove_shared(str(self.copies), self.blocks.token)
        elif self.blocks.folder is not None:
            gang.on_survivors(remove_shared, self.blocks.folder, self.blocks.token)


def keep(
    block_plan: BlockPlan,
    gang: Gang,
    *,
    place: str,
    packed_bytes: int,
    member_bytes: float,
    owners: Mapping[int, int],
    fractions: Mapping[int, float],
    results: Path | None = None,
    shares: Shares = SHARES,
) -> Keeping:
    """Decide where the blocks of a plan stay, and begin to hold them there.

    Parameters
    ----------
    block_plan : BlockPlan
        The blocks.
    gang : Gang
        Those who use them.
    place : str
        What is wished: ``memory``, ``disk``, ``none``; ``auto``, the first of these that has room;
        or a folder that all workers see, in place of their own disks, which has a copy of what
        they hold in memory, too. ``auto`` makes one by itself where workers may end together.
    packed_bytes : int
        Bytes of all blocks in packed form.
    member_bytes : float
        Those of the blocks that a member uses; of some, several do.
    owners : mapping of int to int
        By block: the place of the member in whose memory it stands best.
    fractions : mapping of int to float
        By split that may be kept where blocks are not: its part of all events. The first that fit
        into a member are kept.
    results : Path, optional
        The run directory.
    shares : Shares
        What part of memory and disk blocks may fill.
    """
    patience = gang.cluster.patience
    # Who make the blocks, and hold them; they may all have ended with the members.
    gang.cluster.wait_for_workers(1, "blocks", seconds=patience.no_worker, group="readers")
    readers = gang.cluster.alive("readers")
    folder = place if "/" in place else None
    if folder is not None and results is not None:
        folder = str(folder_of_run(Path(folder), results))
    copies = place_of_copies(gang.cluster, results) if place == "auto" else None
    by_run = copies is not None and make_folder(
        gang.cluster, copies, block_plan.token, num_bytes=packed_bytes, share=shares.copies
    )
    if by_run:
        folder = str(copies)
    if folder is not None:
        leave_word(results, Path(folder))
    storage = next((each for each in STORAGES if each == place), None)
    if storage is None:  # auto, or a folder
        storage = _roomiest(gang, readers, packed_bytes, member_bytes, shares, folder)
    memory = shares.memory * gang.least_memory
    if storage == "disk":
        on_disk = folder is None
        kept = KeptBlocks.of(
            block_plan, on_disk=on_disk, folder=folder, by_run=by_run, patience=patience
        )
        return Keeping(storage, kept, memory, copies=copies)
    if storage == "none":
        splits, room = [], memory / 2
        for split, fraction in fractions.items():
            room -= fraction * packed_bytes / gang.size
            if room >= 0:
                splits.append(split)
        blocks = KeptBlocks.of(block_plan, splits=tuple(splits), patience=patience)
        return Keeping(storage, blocks, memory, copies=copies)
    in_rank = member_bytes <= memory
    blocks = KeptBlocks.of(
        block_plan, folder=folder, by_run=by_run, in_rank=in_rank, patience=patience
    )
    near: dict[int, str] = {}
    if readers.keys() == gang.workers.keys():  # otherwise the memory of all is needed
        workers = list(gang.workers)
        near = {number: workers[rank] for number, rank in owners.items()}
    futures = [
        blocks.submit(gang.cluster, number, near=near.get(number))
        for number in range(len(blocks.partitions))
    ]
    return Keeping(storage, blocks, memory, futures, copies)


def _roomiest(
    gang: Gang,
    readers: Mapping[str, Mapping[str, Any]],
    packed_bytes: int,
    member_bytes: float,
    shares: Shares,
    folder: str | None,
) -> Storage:
    """Where there is room for blocks."""
    # A worker without a limit reports 0.
    memory = sum(info["memory_limit"] or math.inf for info in readers.values())
    if packed_bytes <= shares.memory * memory:
        return "memory"
    if folder is not None:
        return "disk"
    # Every member keeps its own events' blocks; those on one machine share its disk.
    free = gang.cluster.on_workers(
        free_bytes, workers=list(gang.workers), what="free room on disks"
    )
    hosts: dict[str, list[int]] = {}
    for worker, room in free.items():
        hosts.setdefault(gang.info[worker]["host"], []).append(room)
    if not hosts:
        return "none"
    room = min(min(rooms) / len(rooms) for rooms in hosts.values())
    return "disk" if member_bytes <= shares.disk * room else "none"
