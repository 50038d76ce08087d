"""Opens data files; keeps the last few open and names the file in every error."""

from __future__ import annotations

import importlib.util
import logging
import os
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

import uproot

from mlaas4hep_dask.errors import (
    DataError,
    MissingExtraError,
    MLaaSError,
    UnreadableFileError,
    did_you_mean,
)
from mlaas4hep_dask.reader.baskets import BasketTable

logger = logging.getLogger(__name__)

T = TypeVar("T")

MAX_OPEN = 4
ATTEMPTS = 3  # for remote files
FIRST_PAUSE = 0.5  # seconds, doubled after each attempt
XROOTD = ("root", "roots", "xroot", "xroots")
# Without these, the client waits minutes for a server that is gone.
XROOTD_LIMITS = {
    "XRD_CONNECTIONWINDOW": "10",
    "XRD_CONNECTIONRETRY": "2",
    "XRD_STREAMERRORWINDOW": "10",
}
TIMEOUT = 60  # seconds without an answer from a remote server


@dataclass(frozen=True)
class OpenTree:
    """An open TTree or RNTuple and what has been learned of its branches."""

    file: str
    name: str
    tree: Any
    uuid: str
    stamp: tuple[int, ...]
    tables: dict[str, BasketTable | None] = field(default_factory=dict)

    @property
    def is_rntuple(self) -> bool:
        """True for an RNTuple, False for a TTree."""
        return not hasattr(self.tree, "branches")

    def close(self) -> None:
        """Close the file."""
        self.tree.file.close()


_open: OrderedDict[tuple[str, str], OpenTree] = OrderedDict()
_lock = Lock()


def is_remote(file: str) -> bool:
    """True for a URL, False for a local path."""
    return "://" in file


def open_tree(file: str, tree: str) -> OpenTree:
    """The open tree; the last few stay open, and a changed local file is opened anew.

    Raises
    ------
    UnreadableFileError
        When the file cannot be opened, after a bounded number of attempts if it is remote.
    DataError
        When it holds no such tree; names the nearest.
    """
    stamp = _stamp(file)
    with _lock:
        known = _open.get((file, tree))
        if known is not None and known.stamp == stamp:
            _open.move_to_end((file, tree))
            return known
    opened = attempt(lambda: _open_now(file, tree, stamp), file)
    with _lock:
        _open[file, tree] = opened
        # The oldest are dropped, not closed: another thread may still read them.
        while len(_open) > MAX_OPEN:
            _open.popitem(last=False)
    return opened


def attempt(action: Callable[[], T], file: str) -> T:
    """What ``action`` returns; failures become errors that name the file.

    A remote file gets `ATTEMPTS` attempts with growing pauses.
    """
    attempts = ATTEMPTS if is_remote(file) else 1
    pause = FIRST_PAUSE
    for number in range(1, attempts + 1):
        try:
            return action()
        except MLaaSError:
            raise
        except Exception as error:  # uproot, fsspec and the codecs raise whatever the bytes cause
            reason = f"{type(error).__name__}: {_first_line(error)}"
            permanent = isinstance(error, FileNotFoundError)
            if number == attempts or permanent:
                tried = f" after {number} attempts" if number > 1 else ""
                raise UnreadableFileError(
                    f"{file} cannot be read{tried} ({reason})", file=file, reason=reason
                ) from error
            logger.warning("%s: attempt %d failed (%s); trying again", file, number, reason)
            time.sleep(pause)
            pause *= 2
    raise AssertionError("the loop returns or raises")


def _open_now(file: str, tree: str, stamp: tuple[int, ...]) -> OpenTree:
    # A dict, because uproot would split a plain path at its last colon.
    if file.split("://")[0] in XROOTD:
        if importlib.util.find_spec("fsspec_xrootd") is None:
            raise MissingExtraError.of("xrootd", module="fsspec_xrootd")
        for name, value in XROOTD_LIMITS.items():  # read when its client is imported
            os.environ.setdefault(name, value)
    if is_remote(file):
        opened = uproot.open({file: None}, timeout=TIMEOUT)
    else:
        opened = uproot.open({file: None}, handler=uproot.MemmapSource)
    trees = [
        name
        for name, kind in opened.classnames(cycle=False).items()
        if kind == "TTree" or kind.endswith("RNTuple")
    ]
    if tree not in trees:
        held = ", ".join(repr(name) for name in trees) or "none"
        raise DataError(
            f"tree {tree!r} is not in {file}; it holds {held}{did_you_mean(tree, trees)}",
            file=file,
            tree=tree,
        )
    return OpenTree(file, tree, opened[tree], str(opened.file.uuid), stamp)


def _stamp(file: str) -> tuple[int, ...]:
    if is_remote(file):
        return ()
    try:
        status = Path(file).stat()
    except OSError as error:
        raise UnreadableFileError(
            f"{file} cannot be read ({error.strerror})", file=file, reason=str(error.strerror)
        ) from error
    return (status.st_ino, status.st_size, status.st_mtime_ns)


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else "no message"
