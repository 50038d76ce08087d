"""Places: where a cluster is started when none runs already, by the words of cluster.address.

A module of `mlaas4hep_dask.cluster.places` starts each. What batch systems differ in has a module
of the system's name in `mlaas4hep_dask.cluster.systems`. Words for what its workers do and where
they keep events are here, too.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args


class BatchSystem(NamedTuple):
    """A batch system.

    ``title`` says what is started, and ``shows`` is the command that shows jobs. Where each machine
    that submits has a queue of its own, ``elsewhere`` is the option that names another one's.
    """

    title: str
    shows: str
    elsewhere: str | None = None


LOCAL = "local"
SYSTEMS = {
    "slurm": BatchSystem("jobs of SLURM", "squeue"),
    "htcondor": BatchSystem("jobs of HTCondor", "condor_q", "-name"),
}
PLACES = {
    LOCAL: "a cluster on this machine",
    **{name: system.title for name, system in SYSTEMS.items()},
}
SCHEMES = ("tcp", "tls")  # of schedulers that run already
Storage = Literal["memory", "disk", "none"]  # where workers keep what they have encoded
BLOCKS = "mlaas4hep_dask-blocks"  # folders of what is kept on disk begin so
STORAGES: tuple[Storage, ...] = get_args(Storage)
Group = Literal["readers", "trainers"]  # of workers: what they do
GROUPS: tuple[Group, ...] = get_args(Group)
VARIABLE = "MLAAS4HEP_HEAD"  # tells what --detach has started the folder of its records
