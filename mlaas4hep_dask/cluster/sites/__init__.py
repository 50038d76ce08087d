"""Sites: batch systems as data, and the scripts of the jobs that are submitted there."""

from mlaas4hep_dask.cluster.sites.carried import Carried, carried
from mlaas4hep_dask.cluster.sites.credentials import check_credentials
from mlaas4hep_dask.cluster.sites.head import head_script
from mlaas4hep_dask.cluster.sites.logs import make_log_folders
from mlaas4hep_dask.cluster.sites.render import job_script
from mlaas4hep_dask.cluster.sites.site import Site, load_site, site_names
from mlaas4hep_dask.cluster.systems.script import Script

__all__ = [
    "Carried",
    "Script",
    "Site",
    "carried",
    "check_credentials",
    "head_script",
    "job_script",
    "load_site",
    "make_log_folders",
    "site_names",
]
