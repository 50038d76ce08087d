"""Clients that try to take a server from the others: ``python attacks.py NAME PORT SECONDS``.

Each opens a number of connections, says ``connected`` once the server has accepted them all, goes
on for some seconds and leaves; at the loopback address only.
"""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator

HOST = b"Host: localhost\r\n"
GET = b"GET /health HTTP/1.1\r\n" + HOST + b"\r\n"
POST = b"POST /v1/models/benchmark/predict HTTP/1.1\r\n" + HOST
PIECE = b"a" * 65536
CONNECT_SECONDS = 60  # until a connection must be accepted
MOST = 64 * 1024**2  # bytes that one connection sends


def endless(begin: bytes, piece: bytes) -> Callable[[], Iterator[bytes]]:
    def pieces() -> Iterator[bytes]:
        yield begin
        for _ in range(MOST // len(piece)):
            yield piece

    return pieces


def dripping(begin: bytes) -> Callable[[], Iterator[bytes]]:
    def pieces() -> Iterator[bytes]:
        yield begin
        while True:
            time.sleep(0.5)  # between two bytes
            yield b"a"

    return pieces


def body(content: bytes) -> Callable[[], Iterator[bytes]]:
    request = POST + b"Content-Length: %d\r\n\r\n" % len(content) + content
    return lambda: iter([request])


def events(*contents: bytes) -> bytes:
    return b'{"events":[' + b",".join(contents) + b"]}"


# By name: what a connection sends, on how many at a time, and whether it reads the answer.
ATTACKS: dict[str, tuple[Callable[[], Iterator[bytes]], int, bool]] = {
    "header": (endless(b"GET /health HTTP/1.1\r\nX: ", PIECE), 2, True),
    "headers": (endless(b"GET /health HTTP/1.1\r\n", b"X: y\r\n" * 10_000), 2, True),
    "url": (endless(b"GET /health", PIECE), 2, True),
    "ahead": (endless(GET, GET * 1000), 2, False),
    "slow-heads": (dripping(b"GET /health HTTP/1.1\r\nX: "), 200, True),
    "slow-bodies": (dripping(POST + b"Content-Length: 1000000\r\n\r\n"), 200, True),
    "lists": (body(events(b'{"x":[%b]}' % b",".join([b"[]"] * 5_000_000))), 4, True),
    "names": (
        body(events(b"{%b}" % b",".join(b'"%d":0' % number for number in range(1_000_000)))),
        4,
        True,
    ),
    "many-lists": (body(events(*[b"[%b]" % b",".join([b"[]"] * 50)] * 10_000)), 4, True),
    "bad-events": (body(events(b'{"x":1}')), 20, True),
    "nothing": (lambda: iter([]), 200, True),
}


class Attack(threading.Thread):
    """One connection after another, until it is over."""

    def __init__(
        self, port: int, pieces: Callable[[], Iterator[bytes]], is_read: bool, over: threading.Event
    ) -> None:
        super().__init__(daemon=True)
        self._port, self._pieces, self._is_read, self._over = port, pieces, is_read, over
        self.connected = threading.Event()

    def run(self) -> None:
        while not self._over.is_set():
            try:
                self._connect()
            except OSError:  # the server does not want it
                time.sleep(0.01)  # or this core would do nothing else

    def _connect(self) -> None:
        with socket.create_connection(("127.0.0.1", self._port), timeout=10) as connection:
            self.connected.set()
            for piece in self._pieces():
                connection.sendall(piece)
                if self._over.is_set():
                    return
            if self._is_read:
                connection.recv(65536)


def main() -> None:
    name, port, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    pieces, connections, is_read = ATTACKS[name]
    over = threading.Event()
    attacks = [Attack(port, pieces, is_read, over) for _ in range(connections)]
    for attack in attacks:
        attack.start()
    for attack in attacks:
        if not attack.connected.wait(CONNECT_SECONDS):
            sys.exit(f"{name}: a connection was not accepted within {CONNECT_SECONDS} s")
    print("connected", flush=True)
    time.sleep(seconds)
    over.set()
    end = time.monotonic() + 1
    for attack in attacks:
        attack.join(max(0, end - time.monotonic()))


if __name__ == "__main__":
    main()
