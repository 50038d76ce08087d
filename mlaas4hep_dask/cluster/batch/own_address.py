"""The address at which workers on other machines reach this one.

Its own name is often one of loopback (Debian: 127.0.1.1).
"""

from __future__ import annotations

import ipaddress
import socket
import warnings

import psutil

from mlaas4hep_dask.errors import ClusterError


def address_for_workers() -> str:
    """The address of this machine for those on others, as far as it can be told.

    Raises
    ------
    ClusterError
        When it has several, and no default route that would tell which.
    """
    from distributed.utils import get_ip

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a machine without a default route
        usual: str = get_ip()
    if not ipaddress.ip_address(usual).is_loopback:
        return usual
    interfaces = {
        address.address: name
        for name, addresses in psutil.net_if_addrs().items()
        for address in addresses
        if address.family == socket.AF_INET
        and not ipaddress.ip_address(address.address).is_loopback
    }
    if len(interfaces) > 1:
        listed = ", ".join(f"{name} ({address})" for address, name in interfaces.items())
        raise ClusterError(
            f"this machine has no default route, and several networks: {listed}; say in the "
            "site's file at which of them workers reach it: interface",
            interfaces=sorted(interfaces.values()),
        )
    return next(iter(interfaces), usual)  # a machine without a network has its own workers alone
