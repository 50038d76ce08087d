"""The names that a server answers to, against web pages that send a browser to it."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Sequence

from mlaas4hep_dask.errors import shown

LOOPBACK = ("localhost", "127.0.0.1", "::1")


class Hosts:
    """The names that may stand in ``Host``, and the pages that may post.

    A page of any site can make a browser ask an address of the local network under a name of its
    own (DNS rebinding), and can post to it without asking. Both name the page's own host.

    Parameters
    ----------
    host : str
        Address that the server listens on. A loopback address answers to all loopback names; the
        address of all interfaces to every address, which no page can have for a name.
    allowed : sequence of str
        Further names, such as that of a proxy in front; ``*`` stands for all.
    """

    def __init__(self, host: str, allowed: Sequence[str] = ()) -> None:
        self._any_name = "*" in allowed
        self._named = {_bare(name) for name in allowed}
        self._names = {_bare(host), *self._named}
        address = _address(host)
        self._any_address = address is not None and address.is_unspecified
        if host == "localhost" or (address is not None and address.is_loopback):
            self._names.update(LOOPBACK)
        elif self._any_address:
            self._names.update((*LOOPBACK, socket.gethostname().casefold()))
        self._seen: dict[bytes, bool] = {}  # by the header's text: parsing costs more than a look

    def problem(
        self,
        hosts: Sequence[bytes],
        origins: Sequence[bytes],
        *,
        version: str,
        target: bytes = b"/",
    ) -> tuple[int, str] | None:
        """Status and reason when a request is not for this server, or from another's page.

        Parameters
        ----------
        hosts, origins : sequence of bytes
            Values of the headers ``Host`` and ``Origin``.
        version : str
            Of HTTP, as in ``1.1``.
        target : bytes
            What the request line asks for. The host in ``http://host/path`` counts, and not that
            in ``Host`` (RFC 9112, 3.2.2).
        """
        if len(hosts) > 1 or (not hosts and version != "1.0"):
            return 400, f"expected one 'Host' header, got {len(hosts)}"
        place = _authority(target)
        if place is None and not hosts:
            return None if not origins else _foreign(origins[0])
        host = hosts[0] if place is None else place
        is_ours = self._seen.get(host)
        if is_ours is None:
            is_ours = self.knows(_name(host))
            if len(self._seen) < 256:
                self._seen[host] = is_ours
        if not is_ours:
            name = shown(_name(host))
            return 421, f"this server does not answer to {name}; --allowed-host adds a name"
        for origin in origins:
            scheme, _, place = origin.partition(b"://")
            same = scheme in (b"http", b"https") and place.lower() == host.lower()
            if not (same or self._any_name or (scheme and _name(place) in self._named)):
                return _foreign(origin)
        return None

    def knows(self, name: str) -> bool:
        """Whether a name, without its port, is one of this server."""
        if self._any_name or name in self._names:
            return True
        return self._any_address and _address(name) is not None


def _foreign(origin: bytes) -> tuple[int, str]:
    page = shown(origin.decode("latin-1"))
    return 403, f"a web page of {page} may not ask this server; --allowed-host adds its host"


def _authority(target: bytes) -> bytes | None:
    """The ``name:port`` of ``http://name:port/path``; None in the usual ``/path``."""
    scheme, colon, rest = target.partition(b"://")
    if not colon or b"/" in scheme:
        return None
    return re.split(rb"[/?#]", rest, maxsplit=1)[0]


def _name(place: bytes) -> str:
    """The name in ``name:port``, or an empty one when there is none."""
    name, colon, port = place.decode("latin-1").strip().rpartition(":")
    if not colon or "]" in port:
        name = f"{name}{colon}{port}"
    elif not port.isdecimal() and port:
        return ""
    return _bare(name)


def _bare(name: str) -> str:
    bare = name.casefold().removesuffix(".")
    return bare[1:-1] if bare.startswith("[") and bare.endswith("]") else bare


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None
