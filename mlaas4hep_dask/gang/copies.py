"""Where a run keeps copies of blocks that outlive workers which end together."""

from __future__ import annotations

import hashlib
import logging
import shutil
from contextlib import suppress
from pathlib import Path

from mlaas4hep_dask.gang.diskcache import folder_of, refuse_others, remove_shared
from mlaas4hep_dask.places import BLOCKS
from mlaas4hep_dask.waiting import ClusterHandle, readers_that_see, size, workers_of

logger = logging.getLogger(__name__)


def place_of_copies(cluster: ClusterHandle, results: Path | None) -> Path | None:
    """Where copies of blocks belong; None where workers need none, or see no folder.

    Parameters
    ----------
    cluster : ClusterHandle
        Whose workers make blocks.
    results : Path or None
        The run directory, in which they are unless the site names a folder for much data.
    """
    workers = workers_of(cluster.client)
    if results is None or not workers.are_jobs_with_files:
        return None
    return results if workers.scratch is None else folder_of_run(workers.scratch, results)


def folder_of_run(shared: Path, results: Path) -> Path:
    """Where one run has its copies in a folder that others use too, such as those of an ensemble.

    Equal data and encoding have equal names of blocks, and the first that ends removes its own.
    """
    run = hashlib.sha256(str(results.absolute()).encode()).hexdigest()[:12]
    return shared / f"{BLOCKS}-of-{run}"


def leave_word(results: Path | None, place: Path) -> None:
    """Have a run directory tell where copies are that lie elsewhere, until they are removed."""
    if results is not None and results not in (place, place.parent):
        with suppress(OSError):  # it is there from the process before; or there is no room
            (results / place.name).symlink_to(place.absolute(), target_is_directory=True)


def make_folder(
    cluster: ClusterHandle, place: Path, token: str, *, num_bytes: int, share: float
) -> bool:
    """Make the folder of copies that workers fill; False, with a warning, where that is no use.

    Parameters
    ----------
    cluster : ClusterHandle
        Whose workers make blocks.
    place : Path
        From `place_of_copies`.
    token : str
        Names the blocks.
    num_bytes : int
        Of all blocks.
    share : float
        What part of the free room they may fill.
    """
    folder = folder_of(str(place), token)
    is_old = folder.is_dir()
    try:
        why = _why_not(cluster, folder, num_bytes=num_bytes, share=share)
    except OSError as error:
        why = str(error)
    if not why:
        return True
    if not is_old:
        remove_shared(str(place), token)
    logger.warning(
        "blocks are not copied into %s: %s; when all jobs end together, they are read and encoded "
        "again (the key cache takes another folder)",
        place,
        why,
    )
    return False


def _why_not(cluster: ClusterHandle, folder: Path, *, num_bytes: int, share: float) -> str:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    refuse_others(folder)
    num_missing = num_bytes - sum(file.stat().st_size for file in folder.iterdir())
    free = shutil.disk_usage(folder).free
    if num_missing > share * free:
        return f"{size(num_bytes)} are more than {share:.0%} of what is free there, {size(free)}"
    seen = readers_that_see(cluster, folder)
    blind = [worker for worker, is_seen in seen.items() if not is_seen]
    if blind:
        first = workers_of(cluster.client).name(blind[0])
        return f"{len(blind)} of {len(seen)} readers cannot write there, such as {first}"
    return "" if seen else "no reader has answered"
