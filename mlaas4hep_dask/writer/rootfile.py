"""A new ROOT file: what trees and RNTuples in one have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import uproot

from mlaas4hep_dask.writer.sink import NOTE


class RootFile:
    """A new ROOT file, which is closed with a text about it, or as it is.

    Parameters
    ----------
    path : Path
        The file; an existing one is overwritten.
    """

    def __init__(self, path: Path) -> None:
        self._file: Any = uproot.recreate(path, compression=uproot.ZSTD(3))

    def close(self, note: str | None) -> None:
        """Close the file, with a text about it."""
        if note is not None:
            self._file[NOTE] = note
        self._file.close()

    def abandon(self) -> None:
        """Close the file as it is."""
        self._file.file.sink.close()
