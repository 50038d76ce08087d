"""Uvicorn's server with limits for its connections, and an end that answers what was accepted."""

from __future__ import annotations

import asyncio
import math
import resource
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any

import uvicorn

from mlaas4hep_dask.serve.connection import Connection
from mlaas4hep_dask.serve.limits import SPARE, STOPPING, Front, Limits

IDLE_SECONDS = 1.0  # for connections without a request, on which one may be on its way
RECEIVE_SECONDS = 4.0  # for the rest of requests that have arrived in part
ANSWER_SECONDS = 8.0  # for answers; then what waits is told so
END_SECONDS = 9.0  # for clients to read them
MAX_WAITING = 4096  # connections that are taken at the end
OTHER_FILES = SPARE + 64  # that a process has open beside its connections


class Server(uvicorn.Server):
    """A server for one application.

    Parameters
    ----------
    app : ASGI application
        Answers requests.
    front : Front
        Limits of the connections.
    keep_alive_seconds : float
        Time for which a connection without a request stays open.
    on_drain, on_give_up : callable
        Called when the server takes no more connections, and when no more time is left for what
        is still unanswered then.
    """

    def __init__(
        self,
        app: Any,
        front: Front,
        *,
        keep_alive_seconds: float,
        on_drain: Callable[[], None],
        on_give_up: Callable[[], None],
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=partial(Connection, front=front),  # type: ignore[arg-type]
                lifespan="off",  # the caller enters it, where its errors arrive as they are
                ws="none",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,  # nobody asks where a request comes from
                timeout_keep_alive=keep_alive_seconds,  # type: ignore[arg-type]  # a timer's delay
            )
        )
        self._front = front
        self._on_drain = on_drain
        self._on_give_up = on_give_up

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Look at all connections every half second."""
        task = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(0.5)
            now = asyncio.get_running_loop().time()
            for connection in self._connections():
                connection.look(now)
            self._front.log(now)

    def _connections(self) -> list[Connection]:
        protocols = self.server_state.connections
        return [each for each in protocols if isinstance(each, Connection)]

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer what was accepted, and end in ten seconds whatever clients do.

        1. Connections that the system holds for us are taken, and no more.
        2. Answers from now on are the last of their connections.
        3. Connections without a request are closed a second later: what was sent before its
           client could know of the end has arrived by then.
        4. Requests that are not whole are refused, later what is unanswered, and at last
           connections are cut.
        """
        self._front.is_draining = True
        self._on_drain()
        connections = [each for listener in sockets or [] for each in _waiting(listener)]
        for server in self.servers:
            server.close()
        for listener in sockets or []:
            listener.close()
        for each in connections:
            with suppress(OSError):
                await asyncio.get_running_loop().connect_accepted_socket(self._connection, each)
        for connection in self._connections():
            connection.finish()
        loop = asyncio.get_running_loop()
        began = loop.time()
        has_given_up = False
        while self.server_state.connections or self.server_state.tasks:
            spent = loop.time() - began
            if self.force_exit or spent > END_SECONDS:
                break
            for connection in self._connections():
                if spent > RECEIVE_SECONDS or (
                    spent > IDLE_SECONDS and not connection.is_receiving
                ):
                    connection.stop_receiving(503, STOPPING)
            if spent > ANSWER_SECONDS and not has_given_up:
                has_given_up = True
                self._on_give_up()
            await asyncio.sleep(0.05)
        for connection in self._connections():
            connection.abort()
        for task in list(self.server_state.tasks):
            task.cancel()
        self._front.log(math.inf)

    def _connection(self) -> asyncio.Protocol:
        return Connection(
            front=self._front,
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )


def _waiting(listener: socket.socket) -> list[socket.socket]:
    """Connections that the system has made and nobody has taken."""
    sockets: list[socket.socket] = []
    with suppress(OSError):  # none waits
        while len(sockets) < MAX_WAITING:
            connection, _ = listener.accept()
            connection.setblocking(False)
            sockets.append(connection)
    return sockets


def fitting(limits: Limits) -> Limits:
    """The limits with no more connections than the system lets the process have.

    The number of open files that it may have is raised as far as that is allowed.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = limits.connections + OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return limits
    most = max(1, soft - OTHER_FILES)
    return replace(
        limits,
        connections=most,
        connections_per_address=min(limits.connections_per_address, most),
    )
