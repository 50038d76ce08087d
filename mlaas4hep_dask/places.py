"""Places: where a cluster is started when none runs already, by the words of cluster.address.

Each is a module of its name in `mlaas4hep_dask.cluster.places`.
"""

from __future__ import annotations

LOCAL = "local"
PLACES = {LOCAL: "a cluster on this machine"}  # what is started there
SCHEMES = ("tcp", "tls")  # of schedulers that run already
