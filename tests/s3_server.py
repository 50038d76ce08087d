"""An S3 server on loopback, that of moto; prints its URL. Objects live in its memory.

It is run by an interpreter that has the package ``moto``. After the signal SIGUSR1 it dies in the
middle of the next answer that has more than 1,000 bytes.
"""

import os
import signal
import socket

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

is_ill = False


def fall_ill(number, frame):
    global is_ill
    is_ill = True


def mortal(app):
    def dying(environ, start_response):
        body = b"".join(app(environ, start_response))
        if not is_ill or len(body) < 1_000:
            yield body
            return
        yield body[: len(body) // 2]
        os.kill(os.getpid(), signal.SIGKILL)

    return dying


class Handler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_request(self, *of):
        """Nobody reads it."""


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, fall_ill)
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen(128)
    port = listening.getsockname()[1]
    app = mortal(DomainDispatcherApplication(create_backend_app))
    options = {"threaded": True, "request_handler": Handler, "fd": listening.fileno()}
    server = make_server("127.0.0.1", 0, app, **options)
    print(f"http://127.0.0.1:{port}", flush=True)  # noqa: T201  # the test reads it
    server.serve_forever()
