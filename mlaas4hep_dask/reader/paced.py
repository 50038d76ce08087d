"""Remote files that tell, while a library reads them at its own pace, that the server answers."""

from __future__ import annotations

from typing import Any

from mlaas4hep_dask.reader.access import listener

BLOCK = 256 * 1024  # bytes that fsspec reads ahead; columns of Parquet lie apart


class PacedFile:
    """A file for pyarrow, which asks for many megabytes at once and from threads of its own.

    What is asked for is read in pieces, and each of them tells that the server is alive.

    Parameters
    ----------
    file : file
        Of fsspec.
    piece_bytes : int
        Bytes of a piece.
    """

    def __init__(self, file: Any, piece_bytes: int) -> None:
        self._file = file
        self._piece_bytes = piece_bytes
        self._heard = listener()

    def read(self, size: int = -1) -> bytes:
        """The next bytes: as many as asked for, or all up to the end of the file."""
        pieces = []
        while size:
            piece = self._file.read(self._piece_bytes if size < 0 else min(self._piece_bytes, size))
            self._heard()
            if not piece:
                break
            pieces.append(piece)
            size -= len(piece) if size > 0 else 0
        return b"".join(pieces)

    def seek(self, place: int, whence: int = 0) -> int:
        """The new place in the file."""
        return int(self._file.seek(place, whence))

    def tell(self) -> int:
        """The place in the file."""
        return int(self._file.tell())

    @property
    def closed(self) -> bool:
        """Whether the file was closed."""
        return bool(self._file.closed)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> PacedFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
