"""How much of memory-mapped files stays mapped into this process.

Mapped pages count as memory of the process, and Dask pauses a worker that seems to have little
left, although the system could take them back at any time. Mapping a page again costs as much as
decompressing lz4 from it, so that what pass 1 has read may stay for pass 2 as long as it is little.
"""

from __future__ import annotations

import mmap
import weakref
from threading import Lock
from typing import Any

import numpy as np

MAX_MAPPED = 256 * 2**20  # bytes
MEMORY_SHARE = 16  # of a worker with a memory limit, at most a sixteenth

_limit = MAX_MAPPED
_read: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()  # bytes by mapping
_lock = Lock()


def limit_mapped(memory_limit: int | None) -> None:
    """Adapt to the memory, in bytes, that this process may have; None is no limit."""
    global _limit  # one process, one limit
    _limit = MAX_MAPPED if not memory_limit else min(MAX_MAPPED, memory_limit // MEMORY_SHARE)


def let_go(source: Any, num_bytes: int) -> None:
    """Count what was read of a source; beyond the limit all pages leave this process.

    The system keeps them in its cache. Sources that are no memory-mapped files are left alone.
    """
    mapped = getattr(source, "_file", None)
    if not isinstance(mapped, np.memmap) or not hasattr(mmap, "MADV_DONTNEED"):
        return
    pages: Any = mapped._mmap  # type: ignore[attr-defined]
    with _lock:
        _read[pages] = min(_read.get(pages, 0) + num_bytes, len(pages))
        if sum(_read.values()) <= _limit:
            return
        known = list(_read)
        _read.clear()
    for found in known:
        if not found.closed:
            found.madvise(mmap.MADV_DONTNEED)
