"""Reads request bodies within limits of size and time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from mlaas4hep_dask.errors import PayloadError

if TYPE_CHECKING:
    from starlette.requests import Request

MAX_BODY_BYTES = 16 * 1024**2
MAX_BODIES = 16  # of the largest size, held at once by all requests together
MAX_SECONDS = 30.0  # for a body to arrive


class Bodies:
    """Bodies of the requests that are being answered.

    Parameters
    ----------
    max_bytes : int
        Largest body.
    max_seconds : float
        Longest time that a body may take to arrive.
    """

    def __init__(
        self, max_bytes: int = MAX_BODY_BYTES, *, max_seconds: float = MAX_SECONDS
    ) -> None:
        self._max_bytes = max_bytes
        self._max_seconds = max_seconds
        self._held = 0

    @asynccontextmanager
    async def read(self, request: Request) -> AsyncIterator[bytearray]:
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
        body = bytearray()
        try:
            await self._receive(request, body)
            yield body
        finally:
            self._held -= len(body)

    async def _receive(self, request: Request, body: bytearray) -> None:
        try:
            async with asyncio.timeout(self._max_seconds):
                async for chunk in request.stream():
                    if len(body) + len(chunk) > self._max_bytes:
                        raise self._too_large()
                    if self._held + len(chunk) > MAX_BODIES * self._max_bytes:
                        raise _error(503, "the server holds too many requests; try again soon")
                    self._held += len(chunk)
                    body += chunk
        except TimeoutError:
            raise _error(408, f"the body took longer than {self._max_seconds:g} s") from None

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
