"""Reads the journal of a run as it grows, from one file to the next."""

from __future__ import annotations

import os
from pathlib import Path

from mlaas4hep_dask.journal.read import JOURNAL, STARTING, Entry, entries_of
from mlaas4hep_dask.journal.records import Progress, Run


class Tail:
    """Gives what a run has told since it was last asked, each record once.

    A process begins in ``starting.jsonl`` and goes on in ``journal.jsonl``, also in that of a new
    folder when the earlier one is moved aside; there its records stand again. A line that is being
    written is given when it is whole, one that was cut is left out.

    Parameters
    ----------
    folder : Path
        The run directory.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: tuple[int, int] | None = None  # device and number of that which is read
        self._offset = 0
        self._run: Entry | None = None  # of the process that writes
        self._num_told = 0  # since it began, but for progress, which does not stand again

    def new(self) -> list[Entry]:
        """What was told since.

        Raises
        ------
        RecordError
            When a later version of this package wrote it.
        """
        entries: list[Entry] = []
        for name in (STARTING, JOURNAL):  # in the order in which they are written
            path = self._folder / name
            try:
                with path.open("rb") as file:
                    entries = self._read(file.fileno(), path)
                    break
            except FileNotFoundError:
                continue
        return entries

    def _read(self, handle: int, path: Path) -> list[Entry]:
        state = os.fstat(handle)
        is_other = self._file != (state.st_dev, state.st_ino) or state.st_size < self._offset
        offset = 0 if is_other else self._offset
        content = os.pread(handle, state.st_size - offset, offset)
        whole = content[: content.rfind(b"\n") + 1]
        entries, _ = entries_of(whole, path)
        if is_other:
            entries = self._after_what_was_told(entries)
        self._file, self._offset = (state.st_dev, state.st_ino), offset + len(whole)
        for entry in entries:
            if isinstance(entry.record, Run):
                self._run, self._num_told = entry, 0
            elif not isinstance(entry.record, Progress):
                self._num_told += 1
        return entries

    def _after_what_was_told(self, entries: list[Entry]) -> list[Entry]:
        """What of another file is new; of another process all since it began."""
        begins = [place for place, each in enumerate(entries) if isinstance(each.record, Run)]
        if self._run is None or not begins:
            return entries
        begin = begins[-1]
        if entries[begin] != self._run:
            return entries[begin:]
        remaining = self._num_told
        for place, entry in enumerate(entries[begin + 1 :], start=begin + 1):
            if isinstance(entry.record, Progress):
                continue
            if remaining == 0:
                return entries[place:]
            remaining -= 1
        return []
