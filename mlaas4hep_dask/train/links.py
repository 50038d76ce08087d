"""The connections of a group of ranks, which can be cut: gloo leaves no wait before its end.

gloo ends a wait for another rank when its connection closes, or after its time-out. A rank that
waits for one which in turn waits for a dead one, or for one whose machine has gone without a word,
sees no connection close.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from contextlib import suppress

import psutil

Place = tuple[str, int]  # address and port


def listening() -> set[Place]:
    """Where this process listens."""
    return {
        (each.laddr.ip, each.laddr.port)
        for each in psutil.Process().net_connections("tcp")
        if each.status == psutil.CONN_LISTEN
    }


def cut(places: Iterable[Place]) -> int:
    """Shut down the connections of this process from or to some places; how many there were.

    Who waits for something that was to come through them is told that they are closed.
    """
    places, number = set(places), 0
    for each in psutil.Process().net_connections("tcp"):
        ends = {tuple(end) for end in (each.laddr, each.raddr)}
        if each.status != psutil.CONN_LISTEN and each.fd >= 0 and ends & places:
            with suppress(OSError), socket.socket(fileno=os.dup(each.fd)) as link:
                link.shutdown(socket.SHUT_RDWR)
                number += 1
    return number
