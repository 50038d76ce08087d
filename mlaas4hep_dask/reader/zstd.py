"""Reads files of zstd frames, and says when the last frame ends too early.

zstandard's own reader takes such an end for that of the text, so that rows would be lost unseen;
those of gzip and bz2 raise EOFError.
"""

from __future__ import annotations

import io
from typing import Any

import zstandard

PIECE = 1 << 16  # bytes, as they are in the file


def unpacked(source: Any) -> io.BufferedReader:
    """The uncompressed content of a binary file object.

    Raises
    ------
    EOFError
        While it is read, when the file ends within a frame.
    """
    return io.BufferedReader(_Frames(source))


class _Frames(io.RawIOBase):
    def __init__(self, source: Any) -> None:
        self._source = source
        self._unpack = zstandard.ZstdDecompressor()
        self._frame: Any = None  # the one that has begun and not ended
        self._packed = b""
        self._content = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, target: Any) -> int:
        while not self._content:
            packed = self._packed or self._source.read(PIECE)
            if not packed:
                if self._frame is not None:
                    raise EOFError("the file ends within a zstd frame")
                return 0
            self._frame = self._frame or self._unpack.decompressobj()
            self._content = memoryview(self._frame.decompress(packed))
            self._packed = b""
            if self._frame.eof:
                self._packed = self._frame.unused_data
                self._frame = None
        num = min(len(target), len(self._content))
        target[:num] = self._content[:num]
        self._content = self._content[num:]
        return num
