"""Usercode: finds, digests, ships and loads what users write: functions, models, normalisations."""

from mlaas4hep_dask.usercode.code import Source, UserCode
from mlaas4hep_dask.usercode.find import find_code
from mlaas4hep_dask.usercode.limit import TRIAL_SECONDS, limited
from mlaas4hep_dask.usercode.load import RAISED, place_of

__all__ = ["RAISED", "TRIAL_SECONDS", "Source", "UserCode", "find_code", "limited", "place_of"]
