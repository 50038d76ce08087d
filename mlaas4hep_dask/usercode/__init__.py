"""Usercode: finds, digests, ships and loads what users write: functions, models, normalisations."""

from mlaas4hep_dask.usercode.code import UserCode
from mlaas4hep_dask.usercode.find import find_code
from mlaas4hep_dask.usercode.limit import TRIAL_SECONDS, limited
from mlaas4hep_dask.usercode.load import RAISED, where_of
from mlaas4hep_dask.usercode.needs import Lack, Need, Tried, try_imports
from mlaas4hep_dask.usercode.source import Source

__all__ = [
    "RAISED",
    "TRIAL_SECONDS",
    "Lack",
    "Need",
    "Source",
    "Tried",
    "UserCode",
    "find_code",
    "limited",
    "try_imports",
    "where_of",
]
