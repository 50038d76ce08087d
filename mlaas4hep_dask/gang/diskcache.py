"""Blocks on disk, so that later epochs, or other workers, need not read and encode again.

A file holds one block in Dask's wire format, packed as it is in memory, after its length. It lies
in the worker's scratch folder, which Dask removes with the worker, or in a folder that all workers
see and that outlives them. It is read, not mapped into memory: a disk that fails, or a file that
somebody cut short, would end the process with a bus error. Such a block is made again. Dask's
format can hold what runs when it is read, so that files which others could have written are not.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import struct
import uuid
from contextlib import suppress
from pathlib import Path

import numpy as np
from distributed import Worker, get_worker
from distributed.protocol import deserialize_bytes, serialize_bytelist

from mlaas4hep_dask.dataset.tasks import make_block
from mlaas4hep_dask.encode import Block
from mlaas4hep_dask.inputs.context import Context
from mlaas4hep_dask.places import BLOCKS
from mlaas4hep_dask.reader import Partition

logger = logging.getLogger(__name__)

_told: set[Path] = set()  # folders of which something was told

FULL = (errno.ENOSPC, errno.EDQUOT)
_LENGTH = struct.Struct("<q")


def block_on_disk(
    partition: Partition,
    context: Context,
    sizes: tuple[int, int, int],
    token: str,
    number: int,
    shared: str | None = None,
    by_run: bool = False,
) -> Block:
    """The block of a partition, from disk if it is there.

    One that was made is written; a full disk costs the file, not the run.

    Parameters
    ----------
    partition : Partition
        What to read.
    context : Context
        What the blocks share, with the encoding.
    sizes : tuple of int
        Its events for training, validation and test.
    token, number
        Name the block; equal tokens stand for equal data and encoding.
    shared : str, optional
        The folder that all workers see, in place of this worker's own disk.
    by_run : bool
        It is the run's own, as of `kept`.
    """
    path = path_of(get_worker(), token, number, shared)
    try:
        return _load(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        _tell(path, f"block {number} is made again: {error}")
    return kept(make_block(partition, context, sizes), path, by_run=by_run)


def kept(block: Block, path: Path, *, by_run: bool = False) -> Block:
    """The same block, which is on disk from now on if there is room.

    Parameters
    ----------
    block : Block
        The block.
    path : Path
        Its file.
    by_run : bool
        The folder was made beside the results of the run: a worker that does not see it does not
        make it, for it would be another.
    """
    try:
        if not by_run:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _store(block, path)
    except OSError as error:
        give_up(path, error, by_run=by_run)
    return block


def give_up(path: Path, error: OSError, *, by_run: bool) -> None:
    """Tell that a block is not kept, and why.

    Where a disk beside the results of a run is full, or the user's quota of it, all blocks there
    are removed: results need the room more.
    """
    text = f"blocks are not kept on disk: {error}"
    if by_run and error.errno in FULL:
        shutil.rmtree(path.parent, ignore_errors=True)
        text += "; all were removed, so that there is room for results"
    _tell(path, text)


def _tell(path: Path, text: str) -> None:
    """Warn, once for a folder and not for every block of it."""
    logger.log(logging.INFO if path.parent in _told else logging.WARNING, "%s: %s", path, text)
    _told.add(path.parent)


def path_of(worker: Worker, token: str, number: int, shared: str | None = None) -> Path:
    """The file of a block: in the worker's scratch folder, or in a folder that all see."""
    return (folder(worker) if shared is None else folder_of(shared, token)) / f"{token}-{number}"


def folder_of(shared: str, token: str) -> Path:
    """Where the blocks of a run lie within a folder that all workers see."""
    return Path(shared) / f"{BLOCKS}-{token}"


# Dask passes the worker to functions that `Client.run` runs on it, by this name.
def folder(dask_worker: Worker) -> Path:
    """Where a worker keeps its blocks."""
    return Path(dask_worker.local_directory) / BLOCKS


def free_bytes(dask_worker: Worker) -> int:
    """Free bytes on the disk of a worker's scratch folder."""
    return shutil.disk_usage(dask_worker.local_directory).free


def clear(dask_worker: Worker) -> None:
    """Remove the blocks of a worker."""
    shutil.rmtree(folder(dask_worker), ignore_errors=True)


def remove_shared(shared: str, token: str) -> None:
    """Remove the blocks of a run from a folder that all workers see."""
    shutil.rmtree(folder_of(shared, token), ignore_errors=True)
    if Path(shared).name.startswith(BLOCKS):  # of one run, which has no others
        with suppress(OSError):
            Path(shared).rmdir()


def _store(block: Block, path: Path) -> None:
    refuse_others(path.parent)
    unfinished = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        frames = serialize_bytelist(block, on_error="raise")
        with unfinished.open("wb") as file:
            file.write(_LENGTH.pack(sum(memoryview(frame).nbytes for frame in frames)))
            for frame in frames:
                file.write(frame)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def refuse_others(folder: Path) -> None:
    """Raise a PermissionError when others may write to a folder, or it is theirs."""
    status = folder.stat()
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise PermissionError(f"{folder} is not this user's alone")


def _load(path: Path) -> Block:
    refuse_others(path.parent)
    with path.open("rb", buffering=0) as file:
        head = file.read(_LENGTH.size)
        (length,) = _LENGTH.unpack(head.ljust(_LENGTH.size, b"\0"))
        if _LENGTH.size + length != os.fstat(file.fileno()).st_size or not length:
            raise OSError("the file was cut short")
        # Writable memory, which compiled kernels tell apart from that which is read-only.
        content = np.empty(length, dtype=np.uint8).data
        num_bytes = 0
        while num_bytes < length:
            num = file.readinto(content[num_bytes:])
            if not num:
                raise OSError("the file was cut short")
            num_bytes += num
    block: Block = deserialize_bytes(content)
    return block
