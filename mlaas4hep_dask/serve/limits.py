"""What one client may take of the server: sizes, numbers and times of its connections."""

from __future__ import annotations

import ipaddress
import logging
from collections import Counter
from dataclasses import dataclass

from mlaas4hep_dask.serve.hosts import Hosts

MAX_VALUES = 4_000_000  # in a request; names are one, lists and objects four
STOPPING = "the server is shutting down"
SPARE = 256  # connections above the limit that are told so; others are cut
LOG_SECONDS = 10.0  # between two lines on what was refused

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of connections.

    Parameters
    ----------
    head_bytes : int
        Longest request line and headers together, longest trailers, and longest chunk extension.
    head_seconds : float
        Longest time for a request's head to arrive, once the connection is there to take it.
    headers : int
        Largest number of headers.
    pipelined : int
        Largest number of requests that wait on one connection for the answer of an earlier one.
    connections : int
        Largest number of connections.
    connections_per_address : int
        Largest number of connections of one address; of IPv6 the first 64 bits count.
    stall_seconds : float
        Time in which a client that has an answer to read has to read ``stall_bytes`` of it.
    stall_bytes : int
        See ``stall_seconds``.
    linger_seconds : float
        Time for which what a client still sends is read and dropped after a last answer, which
        it might not get otherwise.
    linger_bytes : int
        The most that is dropped so of a body; of anything else it is a megabyte.
    """

    head_bytes: int = 64 * 1024
    head_seconds: float = 10.0
    headers: int = 128
    pipelined: int = 32
    connections: int = 4096
    connections_per_address: int = 2048
    stall_seconds: float = 10.0
    stall_bytes: int = 16 * 1024
    linger_seconds: float = 2.0
    linger_bytes: int = 32 * 1024**2


class Front:
    """What all connections of a server share.

    Parameters
    ----------
    limits : Limits
        Limits of each of them.
    hosts : Hosts
        Names that the server answers to.
    """

    def __init__(self, limits: Limits, hosts: Hosts) -> None:
        self.limits = limits
        self.hosts = hosts
        self.is_draining = False
        self._by_address: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()
        self._log_after = 0.0

    def enter(self, address: str) -> str | None:
        """Count a connection of an address; the reason when it is one too many."""
        self._by_address[address] += 1
        if self._by_address.total() > self.limits.connections:
            return f"the server has {self.limits.connections} connections; try again soon"
        if self._by_address[address] > self.limits.connections_per_address:
            most = self.limits.connections_per_address
            return f"{address} has {most} connections; use fewer, or try again soon"
        return None

    def leave(self, address: str) -> None:
        """Forget a connection that was counted."""
        self._by_address[address] -= 1
        if not self._by_address[address]:
            del self._by_address[address]

    def note(self, reason: str) -> None:
        """Count something that a client was refused, for the log."""
        self._refused[reason] += 1

    @property
    def is_flooded(self) -> bool:
        """Whether too many connections are being told that they are too many."""
        return self._by_address.total() > self.limits.connections + SPARE

    def log(self, now: float) -> None:
        """One line every ten seconds on what was refused since the last, however much it was."""
        if self._refused and now >= self._log_after:
            causes = ", ".join(
                f"{what} ({number})" for what, number in self._refused.most_common(8)
            )
            logger.warning("refused or cut: %s", causes)
            self._refused.clear()
            self._log_after = now + LOG_SECONDS


def address_of(client: tuple[str, int] | None) -> str:
    """What connections are counted by."""
    host = client[0].partition("%")[0] if client else ""
    if ":" not in host:
        return host
    address = ipaddress.IPv6Address(host)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((int(address), 64), strict=False))
