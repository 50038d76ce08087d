"""A transport that lets its connection decide how to close."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Transport:
    """A transport whose ``close`` is the connection's, and that is not used once it is closed.

    Uvloop raises then, and what writes an answer hears of the end of a connection only later.

    Parameters
    ----------
    transport : Transport
        Does all the rest.
    close : callable
        Called in place of its ``close``.
    """

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        self.transport = transport
        self.is_left = False
        self.close = close
        self.get_extra_info = transport.get_extra_info

    def write(self, data: bytes) -> None:
        """Send, unless the transport is closing."""
        if not self.transport.is_closing():
            self.transport.write(data)

    def pause_reading(self) -> None:
        """Leave what comes to the system."""
        if not self.transport.is_closing():
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Take it again."""
        if not self.transport.is_closing():
            self.transport.resume_reading()

    def is_closing(self) -> bool:
        """Whether the connection, or the transport, is closing."""
        return self.is_left or self.transport.is_closing()

    def forget(self) -> None:
        """Let go of the connection, which a circle of references would outlive."""
        self.close = _nothing


def _nothing() -> None:
    """Close what is closed."""
