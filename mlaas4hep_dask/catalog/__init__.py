"""From names to files: globs, lists, URLs, file sets, Rucio's data sets, friends."""

from mlaas4hep_dask.catalog.files import Listing, befriended, expand_files, resolve_files
from mlaas4hep_dask.catalog.locations import DataFile, FriendFiles, Recorded

__all__ = [
    "DataFile",
    "FriendFiles",
    "Listing",
    "Recorded",
    "befriended",
    "expand_files",
    "resolve_files",
]
