"""Reads request bodies within limits of size and time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.requests import Request

from mlaas4hep_dask.errors import PayloadError

MAX_BODY_BYTES = 16 * 1024**2
MAX_BODIES = 16  # of the largest size, held at once by all requests together
MAX_SECONDS = 30.0  # for a body to arrive


class Bodies:
    """Bodies of the requests that are being answered.

    Parameters
    ----------
    max_bytes : int
        Largest body.
    """

    def __init__(self, max_bytes: int = MAX_BODY_BYTES) -> None:
        self._max_bytes = max_bytes
        self._held = 0

    @asynccontextmanager
    async def read(self, request: Request) -> AsyncIterator[bytes]:
        """The body of a request; it counts as held until the context ends.

        Raises
        ------
        PayloadError
            When the body is no plain JSON by its headers (status 415), is too large (413), too
            slow (408), or when the server holds too many others (503).
        """
        _require_json(request)
        declared = request.headers.get("content-length", "")
        if declared.isdecimal() and int(declared[:20]) > self._max_bytes:
            raise self._too_large()
        chunks: list[bytes] = []
        try:
            await self._receive(request, chunks)
            yield b"".join(chunks)
        finally:
            self._held -= sum(map(len, chunks))

    async def _receive(self, request: Request, chunks: list[bytes]) -> None:
        room = self._max_bytes
        try:
            async with asyncio.timeout(MAX_SECONDS):
                async for chunk in request.stream():
                    room -= len(chunk)
                    if room < 0:
                        raise self._too_large()
                    if self._held + len(chunk) > MAX_BODIES * self._max_bytes:
                        raise _error(503, "the server holds too many requests; try again soon")
                    self._held += len(chunk)
                    chunks.append(chunk)
        except TimeoutError:
            raise _error(408, f"the body did not arrive within {MAX_SECONDS:.0f} s") from None

    def _too_large(self) -> PayloadError:
        return _error(413, f"the body is larger than {self._max_bytes} bytes")


def _require_json(request: Request) -> None:
    encoding = request.headers.get("content-encoding", "identity")
    if encoding.strip().lower() != "identity":
        raise _error(415, "the body is compressed; send plain JSON")
    kind = request.headers.get("content-type", "application/json")
    if kind.split(";")[0].strip().lower() != "application/json":
        raise _error(415, "send JSON with the header 'Content-Type: application/json'")


def _error(status: int, message: str) -> PayloadError:
    return PayloadError(message, event=None, branch=None, status=status)
