"""dataset.yaml as validated, frozen models whose errors name the YAML line."""

from mlaas4hep_dask.config.encoding import Encoding
from mlaas4hep_dask.config.friends import Friend
from mlaas4hep_dask.config.function import Function
from mlaas4hep_dask.config.image import Image
from mlaas4hep_dask.config.load import cluster_of, given_of, load
from mlaas4hep_dask.config.problems import Places
from mlaas4hep_dask.config.reading import Reading
from mlaas4hep_dask.config.root import Config
from mlaas4hep_dask.config.schema import json_schema
from mlaas4hep_dask.config.sections import (
    Branches,
    Cluster,
    Model,
    Partitioning,
    Sample,
    Split,
)
from mlaas4hep_dask.config.selection import Selection, check_collections, select_branches
from mlaas4hep_dask.config.specs import SpecsPass
from mlaas4hep_dask.config.target import Target
from mlaas4hep_dask.config.training import Training

__all__ = [
    "Branches",
    "Cluster",
    "Config",
    "Encoding",
    "Friend",
    "Function",
    "Image",
    "Model",
    "Partitioning",
    "Places",
    "Reading",
    "Sample",
    "Selection",
    "SpecsPass",
    "Split",
    "Target",
    "Training",
    "check_collections",
    "cluster_of",
    "given_of",
    "json_schema",
    "load",
    "select_branches",
]
