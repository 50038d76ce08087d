"""Places: where a cluster is started when none runs already, by the words of cluster.address.

A module of `mlaas4hep_dask.cluster.places` starts each. Words for what its workers do and where
they keep events are here, too.
"""

from __future__ import annotations

from typing import Literal, get_args

LOCAL = "local"
SYSTEMS = {"slurm": "jobs of SLURM", "htcondor": "jobs of HTCondor"}  # batch systems
PLACES = {LOCAL: "a cluster on this machine", **SYSTEMS}  # what is started there
SCHEMES = ("tcp", "tls")  # of schedulers that run already
Storage = Literal["memory", "disk", "none"]  # where workers keep what they have encoded
STORAGES: tuple[Storage, ...] = get_args(Storage)
Group = Literal["readers", "trainers"]  # of workers: what they do
GROUPS: tuple[Group, ...] = get_args(Group)
