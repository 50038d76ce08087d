"""What every file format can do, and the name under which a file tells where it comes from."""

from __future__ import annotations

from typing import Protocol

from mlaas4hep_dask.events import Events

NOTE = "mlaas4hep_dask"


class Sink(Protocol):
    """What a file format can do."""

    def append(self, events: Events) -> None:
        """Write some events."""

    def close(self, note: str | None) -> None:
        """Complete the file, with a text about it."""

    def abandon(self) -> None:
        """Let go of a file that nobody will read."""
