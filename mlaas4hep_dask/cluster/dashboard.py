"""Where the dashboard of a cluster is, for a browser on this machine and on another one."""

from __future__ import annotations

import getpass
import os
import socket
from typing import TYPE_CHECKING

from mlaas4hep_dask.places import LOCAL, PLACES

if TYPE_CHECKING:
    from distributed import Client

    from mlaas4hep_dask.config import Cluster


def dashboard_lines(client: Client, options: Cluster) -> list[str]:
    """What to tell of the dashboard: its link, and from afar the ssh line that makes it reachable.

    Parameters
    ----------
    client : distributed.Client
        Of the cluster.
    options : Cluster
        Section ``cluster`` of the configuration.
    """
    from mlaas4hep_dask.waiting.waits import asked  # which imports Dask

    identity = asked(client, client.scheduler.identity, "asking for the dashboard")
    port = identity["services"].get("dashboard")
    if port is None:
        return ["dashboard: none, since bokeh is not installed"]
    if options.address not in PLACES:
        return [f"dashboard: {client.dashboard_link}"]
    lines = [f"dashboard: http://127.0.0.1:{port}/status"]  # it listens there alone
    if "SSH_CONNECTION" in os.environ or options.address != LOCAL:
        user, host = getpass.getuser(), socket.getfqdn()
        if host.partition(".")[0] == "localhost":  # as Debian's /etc/hosts may have it
            host = socket.gethostname()
        lines.append(f"  from another machine: ssh -N -L {port}:127.0.0.1:{port} {user}@{host}")
    return lines
