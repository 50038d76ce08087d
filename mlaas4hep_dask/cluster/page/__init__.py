"""The page of runs on Dask's dashboard: what runs and supervisors tell, on the scheduler."""

from mlaas4hep_dask.cluster.page.plugin import PATH, add_page
from mlaas4hep_dask.cluster.page.report import performance_report
from mlaas4hep_dask.cluster.page.teller import Teller

__all__ = ["PATH", "Teller", "add_page", "performance_report"]
