"""Reads request bodies within limits of size and time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from starlette.exceptions import HTTPException
from starlette.requests import Request

from mlaas4hep_dask.errors import BusyError
from mlaas4hep_dask.serve.limits import STOPPING

MAX_BODY_BYTES = 16 * 1024**2
MAX_BODIES = 16  # of the largest size, held at once by all requests together
SMALL_BYTES = 64 * 1024  # of a body that may use the last quarter of this
MAX_SECONDS = 30.0  # for a body to arrive
FIRST_SECONDS = 5.0  # of these, for which it may be slow
MIN_RATE = 16 * 1024  # bytes per second after that
SLOW_SECONDS = 1.0  # after which a body that still arrives may have to make room for another
CLOSE = {"Connection": "close"}  # the rest of a body that is too large or too slow is not read


@dataclass(eq=False, slots=True)
class _Arrival:
    """A body that arrives."""

    began: float
    body: bytearray
    deadline: asyncio.Timeout = field(init=False)
    is_given_up: bool = False


class Bodies:
    """Bodies of the requests that are being answered.

    Parameters
    ----------
    max_bytes : int
        Largest body.
    max_seconds : float
        Longest time that a body may take to arrive.
    first_seconds : float
        Time that every body has.
    min_rate : int
        Bytes of it that bring a second more.
    slow_seconds : float
        Time after which a body that still arrives may have to make room for another.
    """

    def __init__(
        self,
        max_bytes: int = MAX_BODY_BYTES,
        *,
        max_seconds: float = MAX_SECONDS,
        first_seconds: float = FIRST_SECONDS,
        min_rate: int = MIN_RATE,
        slow_seconds: float = SLOW_SECONDS,
    ) -> None:
        self._max_bytes = max_bytes
        self._max_seconds = max_seconds
        self._first_seconds = first_seconds
        self._min_rate = min_rate
        self._slow_seconds = slow_seconds
        self._max_held = MAX_BODIES * max_bytes
        self._held = 0
        self._arriving: set[_Arrival] = set()  # those that are not small
        self._is_draining = False

    def drain(self) -> None:
        """Say of bodies that come too late from now on that the server ends."""
        self._is_draining = True

    @asynccontextmanager
    async def read(self, request: Request) -> AsyncIterator[bytearray]:
        """The body of a request; it counts as held until the context ends.

        Raises
        ------
        HTTPException
            When the body is too large (status 413) or too slow (408).
        BusyError
            When the server holds too many others.
        """
        declared = request.headers.get("content-length", "")
        if declared.isdecimal() and int(declared[:20]) > self._max_bytes:
            raise self._too_large()
        body = bytearray()
        arrival = _Arrival(asyncio.get_running_loop().time(), body)
        try:
            await self._receive(request, arrival)
            yield body
        finally:
            if not arrival.is_given_up:
                self._held -= len(body)

    async def _receive(self, request: Request, arrival: _Arrival) -> None:
        body, began = arrival.body, arrival.began
        allowed = min(self._first_seconds, self._max_seconds)
        try:
            async with asyncio.timeout_at(began + allowed) as arrival.deadline:
                async for chunk in request.stream():
                    if len(body) + len(chunk) > self._max_bytes:
                        raise self._too_large()
                    self._make_room(arrival, len(chunk))
                    self._held += len(chunk)
                    body += chunk
                    if len(body) > self._min_rate:
                        self._arriving.add(arrival)
                        allowed = self._first_seconds + len(body) / self._min_rate
                        allowed = min(allowed, self._max_seconds)
                        arrival.deadline.reschedule(began + allowed)
        except TimeoutError:
            if arrival.is_given_up:
                raise self._no_room() from None
            if self._is_draining:
                raise BusyError(STOPPING) from None
            raise HTTPException(
                408,
                f"the body took longer than {allowed:.3g} s: {len(body)} bytes came; send "
                f"{self._min_rate} a second or more, and all in {self._max_seconds:g} s",
                CLOSE,
            ) from None
        finally:
            self._arriving.discard(arrival)

    def _make_room(self, arrival: _Arrival, more: int) -> None:
        """See to it that more of a body can be held, at the cost of the slowest that arrives."""
        # Slow clients with large bodies leave room for the small ones of others.
        is_small = len(arrival.body) + more <= SMALL_BYTES
        room = self._max_held if is_small else 3 * self._max_held // 4
        now = asyncio.get_running_loop().time()
        while self._held + more > room:
            others = self._arriving - {arrival}
            slow = [each for each in others if now - each.began > self._slow_seconds]
            if not slow:
                raise self._no_room()
            slowest = min(slow, key=lambda each: len(each.body) / (now - each.began))
            self._arriving.discard(slowest)
            self._held -= len(slowest.body)
            slowest.is_given_up = True
            slowest.deadline.reschedule(now)

    def _no_room(self) -> BusyError:
        return BusyError("the server holds too many requests; try again soon")

    def _too_large(self) -> HTTPException:
        return HTTPException(413, f"the body is larger than {self._max_bytes} bytes", CLOSE)


def require_json(request: Request) -> None:
    """Raise an HTTPException (415) when a body is no plain JSON by its headers."""
    encoding = request.headers.get("content-encoding", "identity")
    if encoding.strip().lower() != "identity":
        raise HTTPException(415, "the body is compressed; send plain JSON")
    kind = request.headers.get("content-type", "application/json")
    if kind.split(";")[0].strip().lower() != "application/json":
        raise HTTPException(415, "send JSON with the header 'Content-Type: application/json'")
