"""Reader: plans partitions of data files and reads them; the only room that opens data files."""

from mlaas4hep_dask.reader.access import Access, require_schemes
from mlaas4hep_dask.reader.compare import require_same_branches
from mlaas4hep_dask.reader.counts import ReadCounts, counting
from mlaas4hep_dask.reader.fileplan import FilePlan
from mlaas4hep_dask.reader.needs import reading_needs
from mlaas4hep_dask.reader.pace import Pace
from mlaas4hep_dask.reader.partition import Partition, cut
from mlaas4hep_dask.reader.plan import plan_file
from mlaas4hep_dask.reader.planned import PlannedFile
from mlaas4hep_dask.reader.read import read

__all__ = [
    "Access",
    "FilePlan",
    "Pace",
    "Partition",
    "PlannedFile",
    "ReadCounts",
    "counting",
    "cut",
    "plan_file",
    "read",
    "reading_needs",
    "require_same_branches",
    "require_schemes",
]
