"""Serves a folder over HTTP with range requests; prints its port."""

import socket
import sys

import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

if __name__ == "__main__":
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen()
    print(listening.getsockname()[1], flush=True)  # noqa: T201  # the test reads it
    app = Starlette(routes=[Mount("/", StaticFiles(directory=sys.argv[1], follow_symlink=True))])
    config = uvicorn.Config(app, log_level="error")
    uvicorn.Server(config).run(sockets=[listening])
