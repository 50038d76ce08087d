"""What pass 1 has measured so far, kept by the client where workers do not see the cache."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mlaas4hep_dask.dataset.cache import SUFFIX, Entry, load, store
from mlaas4hep_dask.dataset.measuring import Piece
from mlaas4hep_dask.dataset.tasks import Measured, merge_measured
from mlaas4hep_dask.inputs.context import Context
from mlaas4hep_dask.reader import Partition
from mlaas4hep_dask.specs import Specs

logger = logging.getLogger(__name__)

EVERY = 60.0  # seconds; to write takes tenths of one


def name_of_all(names: Sequence[str], samples: Sequence[str], context: Context) -> str:
    """The name of an entry for a whole data set.

    Parameters
    ----------
    names : sequence of str
        Those of its files' entries.
    samples : sequence of str
        Theirs, file by file.
    context : Context
        What all partitions share.
    """
    supervision = context.supervision
    classes = [] if supervision.targets else [supervision.class_of(each) for each in samples]
    identity = [list(names), list(samples), classes, context.fractions, context.seed]
    digest = hashlib.sha256(json.dumps(identity).encode()).hexdigest()
    return f"{digest[:2]}/{digest[2:]}{SUFFIX}"


class SoFar:
    """What was measured of a data set, in one entry of the cache.

    Parameters
    ----------
    path : Path
        Of the entry.
    every : float
        Seconds between two times that it is written.
    """

    def __init__(self, path: Path, *, every: float = EVERY) -> None:
        self._path = path
        self._every = every
        self._written = time.monotonic()
        self._new: list[Measured] = []
        self._kept = Measured(Specs(), {})

    def load(self, partitions: Sequence[Partition]) -> Measured:
        """What an earlier process has left of these partitions."""
        entry = load(self._path) if self._path.exists() else None
        if entry is not None:
            sizes = dict(zip(entry.numbers, entry.split_counts, strict=True))
            num_events = sum(len(partitions[number]) for number in sizes)
            self._kept = Measured(entry.specs, sizes)
            return replace(self._kept, num_cached=num_events)
        return self._kept

    def add(self, measured: Measured) -> None:
        """Take in some partitions of which all could be read; others are to be tried again."""
        if measured.skipped:
            return
        self._new.append(Measured(measured.specs, measured.split_counts))
        if time.monotonic() - self._written > self._every:
            self.write()

    def write(self) -> None:
        """Write the entry, if there is anything new."""
        if not self._new:
            return
        self._kept = merge_measured([self._kept, *self._new])
        self._new = []
        numbers = tuple(sorted(self._kept.split_counts))
        sizes = tuple(self._kept.split_counts[number] for number in numbers)
        if why := store(self._path, Entry(self._kept.specs, sizes, numbers)):
            logger.warning("what was measured so far is not kept in %s: %s", self._path, why)
        self._written = time.monotonic()


def missing(pieces: Sequence[Piece], measured: Measured) -> list[Piece]:
    """The partitions of pieces that are not measured yet."""
    parts: list[Piece] = []
    for piece in pieces:
        if not any(number in measured.split_counts for number in _numbers(piece)):
            parts.append(piece)
            continue
        parts += [part for part in piece.divided(1) if part.first not in measured.split_counts]
    return parts


def _numbers(piece: Piece) -> range:
    return range(piece.first, piece.first + len(piece))
