"""Clusters for notebooks and scripts: started or joined by one call, ended by another."""

from __future__ import annotations

import atexit
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Self

from mlaas4hep_dask.cluster import attach
from mlaas4hep_dask.cluster.dashboard import dashboard_lines
from mlaas4hep_dask.waiting import ClusterHandle

if TYPE_CHECKING:
    from distributed import Client

    from mlaas4hep_dask.config import Cluster


class Session(ClusterHandle):
    """A cluster's handle that can be closed; also at the end of a ``with`` or of the process.

    It shows itself as Dask's client does, with the number of workers and the dashboard's link.
    """

    def __init__(self, client: Client, options: Cluster, stack: ExitStack) -> None:
        super().__init__(client)
        self._options = options
        self._stack = stack
        atexit.register(self.close)

    def close(self) -> None:
        """End the cluster if it was started by `connect`: no worker, job or key is left."""
        atexit.unregister(self.close)
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def dashboard(self) -> str:
        """Where the dashboard is, with the ssh line that makes it reachable from afar."""
        return "\n".join(dashboard_lines(self.client, self._options))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.client!r}>"

    def _repr_html_(self) -> str:
        text: str = self.client._repr_html_()  # what notebooks ask of every object
        return text


def connect(
    address: str = "local",
    *,
    site: str | None = None,
    workers: int | None = None,
    memory_limit: int | str | None = None,
    ranks: int = 2,
    jobs: str | Path | None = None,
) -> Session:
    """The handle of a cluster, whose ``client`` is Dask's; `Session.close` ends what was started.

    Parameters
    ----------
    address : str
        ``local``, ``slurm`` or ``htcondor``, where a cluster is started, or the address of a
        scheduler that runs.
    site : str, optional
        Of a batch system: name or YAML file of a site, which tells the system too.
    workers : int, optional
        As ``cluster.workers`` of dataset.yaml.
    memory_limit : int or str, optional
        Of a worker: bytes, or a size such as ``"4 GB"``.
    ranks : int
        Workers that will train at once; as ``training.ranks`` of the data sets, or more.
    jobs : str or Path, optional
        Folder of the scripts, logs and records of jobs; by default ``mlaas4hep.jobs`` in the
        current folder.

    Raises
    ------
    ConfigError
        When an argument is not valid.
    ClusterError
        When there is no such cluster, or it does not start.

    Examples
    --------
    >>> from mlaas4hep_dask import Dataset, connect
    >>> cluster = connect("slurm", site="ours.yaml", workers=20)  # doctest: +SKIP
    >>> dataset = Dataset.from_yaml("dataset.yaml", cluster)  # doctest: +SKIP
    """
    from mlaas4hep_dask.cluster.sites.site import system_of
    from mlaas4hep_dask.config import cluster_of

    options = cluster_of(
        "connect: {}".format,
        address=system_of(site, address),
        site=site,
        workers=workers,
        memory_limit=memory_limit,
    )
    with ExitStack() as stack:
        folder = None if jobs is None else Path(jobs)
        client = stack.enter_context(attach.connect(options, ranks=ranks, jobs=folder))
        return Session(client, options, stack.pop_all())
