"""The folders in which a local cluster keeps files, gone when it has ended."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from multiprocessing.util import get_temp_dir
from pathlib import Path

PREFIX = "mlaas4hep_dask-scratch-"
SOCKETS = "pymp-"  # as multiprocessing's folders begin
MARK = "mlaas4hep_dask-sockets"  # a file by which those of our processes are known


@contextmanager
def scratch_folder(parent: str | None) -> Iterator[Path]:
    """A new folder; those that killed processes of this user have left behind are removed first.

    Parameters
    ----------
    parent : str or None
        Where it is made; None is the system's temporary directory.
    """
    root = Path(parent or tempfile.gettempdir())
    root.mkdir(parents=True, exist_ok=True)
    for other in root.glob(f"{PREFIX}*"):
        _remove_if_left(other)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=root))
    lock = _locked(folder)
    try:
        yield folder
    finally:
        os.close(lock)
        shutil.rmtree(folder, ignore_errors=True)


@cache
def socket_folder() -> Path:
    """The folder in which multiprocessing keeps sockets, one for a process; it removes it at exit.

    Those that killed processes of this user have left behind are removed here.
    """
    folder = Path(get_temp_dir())
    for mark in folder.parent.glob(f"{SOCKETS}*/{MARK}"):
        if mark.is_file():  # what lies here else, as a copy of this package, is somebody's own
            _remove_if_left(mark.parent)
    _locked(folder)  # before it is marked: others remove what is marked and not held
    (folder / MARK).touch()
    return folder


def _locked(folder: Path) -> int:
    """A lock that lasts until it is closed, or this process ends in whatever way."""
    lock = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    fcntl.flock(lock, fcntl.LOCK_SH)
    return lock


def _remove_if_left(folder: Path) -> None:
    with suppress(OSError):  # it is not ours, or gone already
        if folder.stat().st_uid != os.geteuid():
            return
        lock = os.open(folder, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(lock)
