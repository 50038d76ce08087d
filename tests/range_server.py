"""Serves a folder over HTTP with range requests; prints its port.

A second argument is the number of bytes that it sends in a second, the same for all together.
After the signal SIGUSR1 it dies in the middle of the next answer that has more than 1,000 bytes.
"""

import asyncio
import os
import signal
import socket
import sys

import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles


class Mortal:
    """An application that can be told to die while it sends."""

    def __init__(self, app):
        self._app = app
        self._is_ill = False
        signal.signal(signal.SIGUSR1, lambda *_: setattr(self, "_is_ill", True))

    async def __call__(self, scope, receive, send):
        async def send_some(message):
            body = message.get("body", b"")
            if not self._is_ill or len(body) < 1_000:
                await send(message)
                return
            await send({**message, "body": body[: len(body) // 2], "more_body": True})
            os.kill(os.getpid(), signal.SIGKILL)

        await self._app(scope, receive, send_some)


class Slow:
    """An application that sends so many bytes per second."""

    def __init__(self, app, rate):
        self._app = app
        self._rate = rate
        self._line = asyncio.Lock()

    async def __call__(self, scope, receive, send):
        async def send_slowly(message):
            async with self._line:
                await asyncio.sleep(len(message.get("body", b"")) / self._rate)
            await send(message)

        await self._app(scope, receive, send_slowly)


if __name__ == "__main__":
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen()
    app = Starlette(routes=[Mount("/", StaticFiles(directory=sys.argv[1], follow_symlink=True))])
    app = Slow(app, float(sys.argv[2])) if sys.argv[2:] else Mortal(app)
    config = uvicorn.Config(app, log_level="error")
    print(listening.getsockname()[1], flush=True)  # noqa: T201  # the test reads it
    uvicorn.Server(config).run(sockets=[listening])
