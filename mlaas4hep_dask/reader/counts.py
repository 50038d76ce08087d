"""What reading cost beside the plain way: repeated attempts, and branches left to uproot."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field


@dataclass
class ReadCounts:
    """Counts of some reads.

    Parameters
    ----------
    retries : Counter
        By file: attempts that failed and were followed by another.
    by_uproot : Counter
        By branch of ROOT files: reads of a partition that were left to uproot.
    """

    retries: Counter[str] = field(default_factory=Counter)
    by_uproot: Counter[str] = field(default_factory=Counter)

    def __add__(self, other: ReadCounts) -> ReadCounts:
        return ReadCounts(self.retries + other.retries, self.by_uproot + other.by_uproot)

    def as_json(self) -> Mapping[str, Mapping[str, int]]:
        """The counts as JSON values."""
        return {
            "retries": dict(sorted(self.retries.items())),
            "read_by_uproot": dict(sorted(self.by_uproot.items())),
        }


_read_counts: ContextVar[ReadCounts | None] = ContextVar("_read_counts", default=None)


@contextmanager
def counting() -> Iterator[ReadCounts]:
    """Counts of all reads within the ``with``."""
    read_counts = ReadCounts()
    token = _read_counts.set(read_counts)
    try:
        yield read_counts
    finally:
        _read_counts.reset(token)


def count_retry(file: str) -> None:
    """Count a failed attempt that is followed by another."""
    read_counts = _read_counts.get()
    if read_counts is not None:
        read_counts.retries[file] += 1


def count_by_uproot(branch: str) -> None:
    """Count a branch of a partition that uproot reads."""
    read_counts = _read_counts.get()
    if read_counts is not None:
        read_counts.by_uproot[branch] += 1
