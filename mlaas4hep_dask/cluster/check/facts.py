"""What a worker finds out about itself and its neighbours; nothing here judges it.

These run on workers, one after the other. They import nothing that a worker may lack before they
look for it.
"""

from __future__ import annotations

import errno
import importlib
import os
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from mlaas4hep_dask.devices import gpus_here
from mlaas4hep_dask.usercode import Need, Tried, try_imports

WRITTEN = 16 * 2**20  # bytes that are written to see whether there is room
_PIECE = 2**20
_listening: dict[int, socket.socket] = {}


@dataclass(frozen=True)
class Scratch:
    """A folder for temporary files.

    Parameters
    ----------
    folder : str
        Where it is.
    free, size : int
        Bytes of its file system.
    seconds : float
        For writing `WRITTEN` bytes to the disk.
    error : str
        Why that did not succeed; empty if it did.
    is_full : bool
        There was no room for them.
    """

    folder: str
    free: int
    size: int
    seconds: float
    error: str = ""
    is_full: bool = False


@dataclass(frozen=True)
class Gpus:
    """What torch sees of GPUs.

    Parameters
    ----------
    names : tuple of str
        Of those that torch can use.
    error : str
        Why it can use none.
    nccl : str
        Version of NCCL, when it has summed numbers over a rank on the first GPU.
    nccl_error : str
        Why it has not.
    """

    names: tuple[str, ...]
    error: str = ""
    nccl: str = ""
    nccl_error: str = ""


@dataclass(frozen=True)
class Facts:
    """What one worker is.

    Parameters
    ----------
    tried : Tried
        What it can import, and where it is.
    pid : int
        Its process.
    cores : int
        Cores that it may use.
    scratch : tuple of Scratch
        Its own folder, and where temporary files go if that is another file system.
    gpus : Gpus or None
        None when nobody asked.
    """

    tried: Tried
    pid: int
    cores: int
    scratch: tuple[Scratch, ...]
    gpus: Gpus | None = None


def facts_of_worker(needs: Sequence[Need], folder: str, *, gpus: bool) -> Facts:
    """What the worker in this process is, whose own folder is ``folder``."""
    folders = [folder]
    with suppress(OSError):  # it is told of below
        if Path(folder).stat().st_dev != Path(tempfile.gettempdir()).stat().st_dev:
            folders.append(tempfile.gettempdir())
    return Facts(
        try_imports(needs),
        os.getpid(),
        len(os.sched_getaffinity(0)),
        tuple(map(scratch_of, folders)),
        gpus_of_worker() if gpus else None,
    )


def scratch_of(folder: str) -> Scratch:
    """Room in a folder, and whether it can be written to; nothing is left there."""
    began = time.perf_counter()
    error, is_full = "", False
    free = size = 0
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        usage = shutil.disk_usage(folder)
        free, size = usage.free, usage.total
        with tempfile.TemporaryFile(dir=folder) as file:
            for _ in range(WRITTEN // _PIECE):
                file.write(b"\0" * _PIECE)
            file.flush()
            os.fsync(file.fileno())
    except OSError as raised:
        error = raised.strerror or str(raised)
        is_full = raised.errno in (errno.ENOSPC, errno.EDQUOT)
    return Scratch(folder, free, size, time.perf_counter() - began, error, is_full)


def listen(host: str) -> int:
    """Listen at a free port of an address of this worker, as a rank does; the port."""
    family, *_, address = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
    listener = socket.create_server((str(address[0]), 0), family=family)
    port: int = listener.getsockname()[1]
    _listening[port] = listener
    threading.Thread(target=_answer, args=(listener,), daemon=True, name="check of ports").start()
    return port


def stop_listening(port: int) -> None:
    """End what `listen` began."""
    listener = _listening.pop(port, None)
    if listener is not None:
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def _answer(listener: socket.socket) -> None:
    with suppress(OSError):  # it is closed
        while True:
            connection, _ = listener.accept()
            with suppress(OSError), connection:
                connection.sendall(b"here")


def reach(host: str, port: int, seconds: float) -> str:
    """Why this process cannot connect to a port; empty when it can."""
    try:
        with socket.create_connection((host, port), timeout=seconds):
            return ""
    except TimeoutError:
        return f"no answer within {seconds:g} s"
    except OSError as error:
        return error.strerror or str(error)


def gpus_of_worker() -> Gpus:
    """What torch sees of GPUs, and whether NCCL works on the first."""
    seen = gpus_here()
    if seen.error:
        return Gpus((), error=seen.error)
    try:
        return Gpus(seen.names, nccl=_nccl_here(importlib.import_module("torch")))
    except Exception as error:  # of a driver, of which there are many kinds
        return Gpus(seen.names, nccl_error=f"{type(error).__name__}: {error}")


def _nccl_here(torch: Any) -> str:
    """The version of NCCL, after it has summed a number over one rank."""
    dist = importlib.import_module("torch.distributed")
    with tempfile.TemporaryDirectory(prefix="mlaas4hep-check-") as folder:
        store = dist.FileStore(str(Path(folder, "store")), 1)
        dist.init_process_group(
            "nccl", store=store, rank=0, world_size=1, timeout=timedelta(seconds=60)
        )
        try:
            one = torch.ones(1, device="cuda:0")
            dist.all_reduce(one)
            torch.cuda.synchronize()
        finally:
            dist.destroy_process_group()
    return ".".join(map(str, torch.cuda.nccl.version()))
