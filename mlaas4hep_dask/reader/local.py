"""Bytes of ROOT files on this machine, read by position into memory of this process.

A file that is mapped into memory ends the process with a bus error when it has become shorter, or
when a network file system fails: the system has no other way to tell. Here the same is an OSError.
The copy costs what a mapping's page faults do; nothing next to zlib or zstd, a fifth of lz4 whose
pages are mapped already.
"""

from __future__ import annotations

import os
import weakref
from typing import Any

import numpy as np
import uproot
from uproot.source.chunk import Chunk, Source
from uproot.source.futures import TrivialFuture


class LocalSource(Source):  # type: ignore[misc]  # untyped there
    """A file of the local file system, for ``uproot.open(…, handler=LocalSource)``.

    A range that reaches beyond the end of the file, as it is now, gives fewer bytes; uproot finds
    them too few where it needs all.

    Parameters
    ----------
    file_path : str
        The file.
    **options
        Of uproot; none of them has a meaning here.

    Raises
    ------
    OSError
        When the file cannot be opened or read.
    """

    def __init__(self, file_path: str, **options: Any) -> None:
        del options
        super().__init__()
        self._file_path = file_path
        self._open()

    def _open(self) -> None:
        self._descriptor = os.open(self._file_path, os.O_RDONLY | os.O_CLOEXEC)
        self._close = weakref.finalize(self, os.close, self._descriptor)

    def __getstate__(self) -> dict[str, Any]:
        return {"_file_path": self._file_path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["_file_path"])  # type: ignore[misc]  # a new descriptor, here

    def __repr__(self) -> str:
        return f"<LocalSource {self._file_path!r}>"

    def chunk(self, start: int, stop: int) -> Any:
        """The bytes from ``start`` up to ``stop``."""
        return self.chunks([(start, stop)], None)[0]

    def chunks(self, ranges: list[tuple[int, int]], notifications: Any) -> list[Any]:
        """The bytes of some ranges, all in one piece of memory; they are there at once."""
        lengths = [self.length_of(start, stop) for start, stop in ranges]
        memory = np.empty(sum(lengths), dtype=np.uint8)
        chunks = []
        place = 0
        for (start, stop), length in zip(ranges, lengths, strict=True):
            num = self.read_into(memory[place : place + length].data, start)
            content = memory[place : place + num]  # shorter if the file has become so
            chunks.append(Chunk(self, start, stop, TrivialFuture(content)))
            place += length
            if notifications is not None:
                notifications.put(chunks[-1])
        return chunks

    def length_of(self, start: int, stop: int) -> int:
        """Bytes that the file has now from ``start`` up to ``stop``."""
        return max(min(stop, self.num_bytes) - start, 0)

    def read_into(self, memory: memoryview, start: int) -> int:
        """Fill ``memory`` with bytes from ``start``; how many there were until the file's end."""
        num_bytes = 0
        while num_bytes < len(memory):
            num = os.preadv(self._descriptor, [memory[num_bytes:]], start + num_bytes)
            if num == 0:
                break
            num_bytes += num
        self._num_requests += 1
        self._num_requested_chunks += 1
        self._num_requested_bytes += num_bytes
        return num_bytes

    @property
    def num_bytes(self) -> int:
        """Bytes that the file has now."""
        return os.fstat(self._descriptor).st_size

    @property
    def closed(self) -> bool:
        """Whether the file has been closed."""
        return not self._close.alive

    def __enter__(self) -> LocalSource:
        return self

    def __exit__(self, *exc: object) -> None:
        self._close()


class Window:
    """Bytes of a local file, one stretch after the other in the same memory.

    Memory that is asked for anew costs the system's page faults each time, and a processor's cache
    does not hold it.

    Parameters
    ----------
    source : LocalSource
        The file.
    """

    def __init__(self, source: LocalSource) -> None:
        self._source = source
        self._memory = memoryview(b"")

    def read(self, start: int, stop: int) -> memoryview:
        """The bytes from ``start`` up to ``stop``, read-only, valid until the next are asked for.

        Raises
        ------
        OSError
            When they cannot be read, or the file ends before.
        """
        if stop - start > len(self._memory):
            self._memory = np.empty(self._source.length_of(start, stop), dtype=np.uint8).data
        memory = self._memory[: stop - start]
        if (num := self._source.read_into(memory, start)) < stop - start:
            content = np.frombuffer(memory[:num], dtype=np.uint8)
            Chunk(self._source, start, stop, TrivialFuture(content)).wait()  # which says so
        return memory.toreadonly()


def open_local(path: str) -> Any:
    """A ROOT file of this machine, opened by uproot."""
    # A dict, because uproot would split a plain path at its last colon.
    return uproot.open({path: None}, handler=LocalSource)
