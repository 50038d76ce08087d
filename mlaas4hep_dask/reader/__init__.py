"""Reader: plans partitions of data files and reads them; the only room that opens data files."""

from mlaas4hep_dask.reader.partition import Partition, cut
from mlaas4hep_dask.reader.plan import FilePlan, PlannedFile, plan_file, require_same_branches
from mlaas4hep_dask.reader.read import read

__all__ = [
    "FilePlan",
    "Partition",
    "PlannedFile",
    "cut",
    "plan_file",
    "read",
    "require_same_branches",
]
