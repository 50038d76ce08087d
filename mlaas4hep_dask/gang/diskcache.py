"""Blocks on a worker's own disk, so that later epochs need not read and encode again.

A file holds one block in Dask's wire format, packed as it is in memory, after its length. It lies
in the worker's scratch folder, which Dask removes with the worker. It is read, not mapped into
memory: a disk that fails, or a file that somebody cut short, would end the process with a bus
error. Such a block is made again.
"""

from __future__ import annotations

import logging
import os
import shutil
import struct
from pathlib import Path

import numpy as np
from distributed import Worker, get_worker
from distributed.protocol import deserialize_bytes, serialize_bytelist

from mlaas4hep_dask.dataset.tasks import (
    make_block,
)
from mlaas4hep_dask.encode import Block
from mlaas4hep_dask.inputs.context import Context
from mlaas4hep_dask.reader import Partition

logger = logging.getLogger(__name__)

_told: set[Path] = set()  # folders that could not be written

FOLDER = "mlaas4hep_dask-blocks"
_LENGTH = struct.Struct("<q")


def block_on_disk(
    partition: Partition,
    context: Context,
    sizes: tuple[int, int, int],
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
    sizes : tuple of int
        Its events for training, validation and test.
    token, number
        Name the block; equal tokens stand for equal data and encoding.
    """
    worker = get_worker()
    path = _path(worker, token, number)
    try:
        return _load(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        logger.warning("block %d is made again: %s: %s", number, path, error)
    return kept(make_block(partition, context, sizes), token, number, worker)


def kept(block: Block, token: str, number: int, worker: Worker) -> Block:
    """The same block, which is on a worker's disk from now on if there is room."""
    path = _path(worker, token, number)
    try:
        _store(block, path)
    except OSError as error:
        level = logging.INFO if path.parent in _told else logging.WARNING  # once, not per block
        logger.log(level, "block %d is not kept on disk: %s", number, error)
        _told.add(path.parent)
    return block


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
    """Remove the blocks of a worker."""
    shutil.rmtree(folder(dask_worker), ignore_errors=True)


def _store(block: Block, path: Path) -> None:
    path.parent.mkdir(mode=0o700, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        frames = serialize_bytelist(block, on_error="raise")
        with unfinished.open("wb") as file:
            file.write(_LENGTH.pack(sum(memoryview(frame).nbytes for frame in frames)))
            for frame in frames:
                file.write(frame)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _load(path: Path) -> Block:
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
