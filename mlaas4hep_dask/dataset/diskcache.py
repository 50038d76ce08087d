"""Blocks on a worker's own disk, so that later epochs need not read and encode again.

A file holds one block in Dask's wire format, packed as it is in memory. It lies in the worker's
scratch folder, which Dask removes with the worker, and is mapped into memory when read: the
system's page cache then decides what stays.
"""

from __future__ import annotations

import logging
import mmap
import os
import shutil
from contextlib import suppress
from pathlib import Path

from distributed import Worker, get_worker
from distributed.protocol import deserialize_bytes, serialize_bytelist

from mlaas4hep_dask.dataset.context import Context
from mlaas4hep_dask.dataset.tasks import (
    make_block,
)
from mlaas4hep_dask.encode import Block
from mlaas4hep_dask.reader import Partition

logger = logging.getLogger(__name__)

FOLDER = "mlaas4hep_dask-blocks"


def block_on_disk(
    partition: Partition,
    context: Context,
    counts: tuple[int, int, int],
    token: str,
    number: int,
) -> Block:
    """The block of a partition, from this worker's disk if it is there.

    One that was made is written; a full disk costs the file, not the run.

    Parameters
    ----------
    partition : Partition
        What to read.
    context : Context
        What the blocks share, with the encoding.
    counts : tuple of int
        Its events for training, validation and test.
    token, number
        Name the block; equal tokens stand for equal data and encoding.
    """
    worker = get_worker()
    with suppress(FileNotFoundError):
        return _load(_path(worker, token, number))
    return kept(make_block(partition, context, counts), token, number, worker)


def kept(block: Block, token: str, number: int, worker: Worker) -> Block:
    """The same block, mapped from a worker's disk, so that the copy in memory can go."""
    path = _path(worker, token, number)
    try:
        _store(block, path)
    except OSError as error:
        logger.warning("block %d is not kept on disk: %s", number, error)
        return block
    return _load(path)


def _path(worker: Worker, token: str, number: int) -> Path:
    return folder(worker) / f"{token}-{number}"


# Dask passes the worker to functions that `Client.run` runs on it, by this name.
def folder(dask_worker: Worker) -> Path:
    """Where a worker keeps its blocks."""
    return Path(dask_worker.local_directory) / FOLDER


def free_bytes(dask_worker: Worker) -> int:
    """Free bytes on the disk of a worker's scratch folder."""
    return shutil.disk_usage(dask_worker.local_directory).free


def clear(dask_worker: Worker) -> None:
    """Remove the blocks of a worker; those that are still mapped stay valid until let go."""
    shutil.rmtree(folder(dask_worker), ignore_errors=True)


def _store(block: Block, path: Path) -> None:
    path.parent.mkdir(mode=0o700, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with unfinished.open("wb") as file:
            for frame in serialize_bytelist(block, on_error="raise"):
                file.write(frame)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _load(path: Path) -> Block:
    with path.open("rb") as file:
        # A private mapping is writable, which compiled kernels tell apart from a read-only one;
        # nothing reaches the file.
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    block: Block = deserialize_bytes(memoryview(mapped))
    return block
