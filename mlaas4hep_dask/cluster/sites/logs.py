"""The folders of jobs' logs that a site names."""

from __future__ import annotations

import os
from pathlib import Path

from mlaas4hep_dask.cluster.sites.model import KINDS
from mlaas4hep_dask.cluster.sites.site import Site
from mlaas4hep_dask.errors import ClusterError


def log_folder(site: Site, group: str) -> Path | None:
    """The folder that a site names for a group's logs; None when it leaves that open."""
    named = site.jobs(group).log_directory
    if named is None:
        return None
    return Path(os.path.expandvars(os.path.expanduser(named)))  # noqa: PTH111  # ~ and $VARIABLES


def make_log_folders(site: Site) -> None:
    """Make the folders that a site names: no batch system does, and jobs would be held.

    Raises
    ------
    ClusterError
        When one is missing and cannot be made.
    """
    for group in KINDS:
        folder = log_folder(site, group)
        if folder is None:
            continue
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ClusterError(
                f"site {site.name}: log-directory {folder} cannot be made ({error.strerror}): name "
                "another folder in the site's file",
                site=site.name,
                folder=str(folder),
            ) from error
