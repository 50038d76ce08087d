"""A connection of HTTP/1.1 within limits: uvicorn's, which sets none of its own.

Uvicorn parses with httptools, and neither bounds what a client sends before a request is whole,
how long it takes for that, how many requests it sends before it reads an answer, or whether it
reads one at all. `Connection` counts and times this, answers in JSON, and keeps the order of
answers when it refuses something.

It relies on what `RELIED_ON` names of uvicorn's class, which `require_uvicorn` looks for when the
server starts, and on these facts: uvicorn hands its ``transport`` to what writes the answers, calls
``send_400_response`` when the parser fails, also when it fails because a callback raised, and
``on_response_complete`` after each answer; ``pipeline`` has the newest request on its left.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from mlaas4hep_dask.errors import ServerError
from mlaas4hep_dask.serve.answers import error_body
from mlaas4hep_dask.serve.limits import Front, address_of
from mlaas4hep_dask.serve.transport import Transport

# Uvicorn warns of every request that is not valid; `Front.log` counts them.
requests_logger = logging.getLogger(f"{__name__}.requests")
requests_logger.setLevel(logging.ERROR)

RELIED_ON = {
    HttpToolsProtocol: (
        "connection_made",
        "connection_lost",
        "data_received",
        "eof_received",
        "on_message_begin",
        "on_header",
        "on_headers_complete",
        "on_body",
        "on_response_complete",
        "resume_writing",
        "send_400_response",
        "timeout_keep_alive_handler",
    ),
    RequestResponseCycle: ("receive", "send"),
}
LINGER_BYTES = 1024**2  # of what is no body
REASONS = {
    400: b"Bad Request",
    403: b"Forbidden",
    408: b"Request Timeout",
    414: b"URI Too Long",
    421: b"Misdirected Request",
    429: b"Too Many Requests",
    431: b"Request Header Fields Too Large",
    503: b"Service Unavailable",
}


def require_uvicorn() -> None:
    """Look for what `Connection` relies on.

    Raises
    ------
    ServerError
        When this version of uvicorn lacks some of it.
    """
    for owner, names in RELIED_ON.items():
        for name in names:
            if not callable(getattr(owner, name, None)):
                raise ServerError(
                    f"uvicorn {uvicorn.__version__} has no {owner.__name__}.{name}, which the "
                    "limits of connections need; install the version that constraints.txt names"
                )


class _RefusedError(Exception):
    """Raised in a callback of the parser, which ends it; `Connection._refusal` says why."""


class Connection(HttpToolsProtocol):
    """One client's connection.

    Parameters
    ----------
    front : Front
        Limits, and what connections share.
    **options
        Those of uvicorn.
    """

    def __init__(self, *, front: Front, **options: Any) -> None:
        super().__init__(**options)
        self.logger = requests_logger
        self._front = front
        self._limits = front.limits
        self._loop: asyncio.AbstractEventLoop = self.loop
        self._address = ""
        self._wrapped: Transport
        self._is_in_head = False
        self._began_now = False  # the head began in what is being parsed
        self._body_came = False  # so did a piece of the body
        self._unparsed = 0  # bytes since the last that became something
        self._fed = 0
        self._num_heads = 0
        self._refusal: tuple[int, str] | None = None
        self._waited: tuple[float, int] | None = None  # since when, and for which head
        self._stalled: tuple[float, int, int] | None = None  # since when, bytes to read, head
        self._close_by: float | None = None
        self._dropped = 0
        self._is_ended = False  # by the client

    # What uvicorn and the transport call

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Count the connection, and refuse it when it is one too many."""
        self._wrapped = Transport(transport, self._close)
        super().connection_made(self._wrapped)  # type: ignore[arg-type]
        self._address = address_of(self.client)
        problem = self._front.enter(self._address)
        if problem is not None:
            self._refuse(503, problem)
            if self._front.is_flooded:
                transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._front.leave(self._address)
        self._wrapped.is_left = True
        super().connection_lost(exc)
        self._wrapped.forget()

    def data_received(self, data: bytes) -> None:
        """Parse what came, unless the connection is being closed."""
        most = self._limits.head_bytes
        if len(data) <= most or self._is_in_body():
            self._parse(data)
            return
        for begin in range(0, len(data), most):  # so that a head is refused in good time
            self._parse(data[begin : begin + most])

    def _parse(self, data: bytes) -> None:
        if self._is_deaf():
            self._drop(len(data))
            return
        self._fed = len(data)
        self._began_now = self._body_came = False
        super().data_received(data)
        if self._is_deaf():
            return
        if self._is_in_head:
            self._unparsed = 0 if self._began_now else self._unparsed + self._fed
        elif self.cycle is not None and self.cycle.more_body and not self._body_came:
            self._unparsed += self._fed  # of a chunk's extension, or trailers
        else:
            self._unparsed = 0
        if self._unparsed > self._limits.head_bytes:
            self._refuse(*self._too_long())

    def _drop(self, size: int) -> None:
        if self._close_by is None:  # earlier requests are being answered
            self.flow.pause_reading()
            return
        self._dropped += size
        of_body = self._refusal is None
        if self._dropped > (self._limits.linger_bytes if of_body else LINGER_BYTES):
            self._wrapped.transport.abort()

    def eof_received(self) -> bool:  # type: ignore[override]
        """Whether an answer is due to a client that will send nothing more."""
        self._is_ended = True
        if self._close_by is None and self.is_receiving and not self._is_deaf():
            self._refuse(400, "the connection ended before the request did")
        elif self._refusal is None:
            self.finish()
        return self._close_by is None and self.is_answering

    def on_message_begin(self) -> None:
        """Note that a head began."""
        self._is_in_head = self._began_now = True
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header, unless there are too many."""
        if len(self.headers) >= self._limits.headers:
            self._refusal = 431, f"more than {self._limits.headers} headers"
            raise _RefusedError
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Hand the request on, unless its head is refused."""
        self._is_in_head = False
        self._num_heads += 1
        self._refusal = self._problem_with_head()
        if self._refusal is not None:
            raise _RefusedError
        super().on_headers_complete()
        self._unparsed = 0
        self.headers = []  # for trailers, which nobody reads
        if self._front.is_draining:
            self.cycle.keep_alive = False
        if len(self.pipeline) > self._limits.pipelined:
            most = self._limits.pipelined
            self._refusal = 429, f"more than {most} requests wait for an answer to an earlier one"
            raise _RefusedError

    def on_body(self, body: bytes) -> None:
        """Note that the body goes on."""
        self._body_came = True
        super().on_body(body)

    def on_response_complete(self) -> None:
        """Go on with the next request, or with what was refused after this one."""
        is_last = not self.pipeline
        is_whole = not self.cycle.more_body
        super().on_response_complete()
        if is_last and self._refusal is not None:
            self._answer_refusal()
        elif is_last and not is_whole:
            self._close()  # the rest of its body is not waited for

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection; `look` times one that has begun a request."""
        self.timeout_keep_alive_task = None
        if not self._is_in_head:
            super().timeout_keep_alive_handler()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002  # the caller is uvicorn
        """Refuse what the parser cannot take, or what a callback did not."""
        self._refuse(*(self._refusal or (400, "this is not a request of HTTP/1.1")))

    def resume_writing(self) -> None:
        """Go on, since the client reads."""
        self._stalled = None
        super().resume_writing()

    # What the server calls

    def look(self, now: float) -> None:
        """Close the connection when the client keeps it waiting for too long."""
        limits = self._limits
        unread = self._wrapped.transport.get_write_buffer_size()
        if self._is_stalled(now, unread):
            self._front.note("an answer that nobody read")
            self._wrapped.transport.abort()
        elif self._close_by is not None:
            if now > self._close_by and not unread:
                self._wrapped.transport.abort()
        elif self._front.is_draining:
            pass  # the server says when it is over, and that it ends
        elif self.is_answering or self.timeout_keep_alive_task is not None:
            self._waited = None
        elif self._waited is None or self._waited[1] != self._num_heads:
            self._waited = now, self._num_heads
        elif now - self._waited[0] > limits.head_seconds:
            self._stop_waiting(408, f"the request took longer than {limits.head_seconds:g} s")

    def _is_in_body(self) -> bool:
        return not self._is_in_head and self.is_answering and self.cycle.more_body

    def _is_deaf(self) -> bool:
        return self._refusal is not None or self._wrapped.is_left

    @property
    def is_answering(self) -> bool:
        """Whether a request waits for its answer, or for the rest of its body."""
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def is_receiving(self) -> bool:
        """Whether a request has arrived in part."""
        return self._is_in_head or (self.is_answering and self.cycle.more_body)

    def finish(self) -> None:
        """Make the answer that is due the last one."""
        if self.is_answering:
            self.cycle.keep_alive = False

    def stop_receiving(self, status: int, reason: str) -> None:
        """Close a connection that sends nothing, or a request whose rest has not come."""
        if self._close_by is None and (self.is_receiving or not self.is_answering):
            self._stop_waiting(status, reason)

    def abort(self) -> None:
        """Close at once."""
        self._wrapped.transport.abort()

    def _is_stalled(self, now: float, unread: int) -> bool:
        if not unread:
            self._stalled = None
            return False
        if self._stalled is None or self._stalled[2] != self._num_heads:
            self._stalled = now, unread, self._num_heads
            return False
        since, before, _ = self._stalled
        if now - since < self._limits.stall_seconds:
            return False
        self._stalled = now, unread, self._num_heads
        return unread > before - self._limits.stall_bytes

    def _stop_waiting(self, status: int, reason: str) -> None:
        if self.is_receiving:
            self._refuse(status, reason)
        else:  # it never began, or it is a body that nobody wanted: there is nothing to answer
            self._close()

    def _problem_with_head(self) -> tuple[int, str] | None:
        version = self.parser.get_http_version()
        if version not in ("1.1", "1.0"):
            return 400, "send HTTP/1.1"
        if self.parser.should_upgrade():
            return 400, "this connection cannot become another; send without 'Upgrade'"
        hosts, origins = [], []
        for name, value in self.headers:
            if name == b"host":
                hosts.append(value)
            elif name == b"origin":
                origins.append(value)
            elif name == b"transfer-encoding" and value.lower() != b"chunked":
                return 400, "the only 'Transfer-Encoding' is chunked"
        if not self._began_now or self._fed > self._limits.head_bytes:
            size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
            if size > self._limits.head_bytes:
                return self._too_long()
        return self._front.hosts.problem(hosts, origins, version=version, target=self.url)

    def _too_long(self) -> tuple[int, str]:
        most = self._limits.head_bytes
        if not self._is_in_head and self.is_answering:
            return 400, f"trailers or a chunk's extension of more than {most} bytes"
        if len(self.url) > most // 2:
            return 414, f"the URL is longer than {most} bytes"
        return 431, f"the headers are longer than {most} bytes"

    def _refuse(self, status: int, reason: str) -> None:
        """Take nothing more, and say why when all earlier requests are answered."""
        self._refusal = status, reason
        self._front.note(f"{status} {REASONS[status].decode()}")
        cycle = self.cycle
        if not self.is_answering:
            self._answer_refusal()
        elif cycle.more_body and self.pipeline and self.pipeline[0][0] is cycle:
            self.pipeline.popleft()  # it is what is refused; earlier ones are being answered
        elif cycle.more_body:
            cycle.disconnected = True  # for the application that reads the body
            cycle.message_event.set()
            if cycle.response_started:
                self._close()
            else:
                self._answer_refusal()

    def _answer_refusal(self) -> None:
        assert self._refusal is not None
        status, reason = self._refusal
        body = error_body(reason)
        head = b"".join(
            [
                b"HTTP/1.1 %d %s\r\n" % (status, REASONS[status]),
                *(b"%s: %s\r\n" % header for header in self.server_state.default_headers),
                b"content-type: application/json\r\ncontent-length: %d\r\n" % len(body),
                b"retry-after: 1\r\n" if status == 503 else b"",
                b"connection: close\r\n\r\n",
            ]
        )
        self._wrapped.write(head + body)
        self._close()

    def _close(self) -> None:
        """Close, after what the client still sends when it may not have finished.

        A system that gets bytes which nobody reads any more tells the client so at once, which
        makes many clients lose the answer that is on its way to them.
        """
        transport = self._wrapped.transport
        if self._wrapped.is_left or transport.is_closing():
            return
        self._close_by = self._loop.time() + self._limits.linger_seconds
        unfinished = self.cycle is not None and self.cycle.more_body
        self._wrapped.is_left = True
        is_over = self._is_ended or (self._refusal is None and not unfinished)
        if is_over or not transport.can_write_eof():
            transport.close()
            return
        self.flow.resume_reading()
        transport.write_eof()
