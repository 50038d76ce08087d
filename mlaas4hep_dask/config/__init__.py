"""dataset.yaml as validated, frozen models whose errors name the YAML line."""

from mlaas4hep_dask.config.encoding import Encoding
from mlaas4hep_dask.config.files import expand_files, resolve_files
from mlaas4hep_dask.config.image import Image
from mlaas4hep_dask.config.load import load, reading_of
from mlaas4hep_dask.config.locations import DataFile, Recorded
from mlaas4hep_dask.config.reading import Reading
from mlaas4hep_dask.config.root import Config, json_schema
from mlaas4hep_dask.config.sections import (
    Branches,
    Cluster,
    Model,
    Partitioning,
    Sample,
    Split,
    Training,
)
from mlaas4hep_dask.config.selection import Selection, check_collections, select_branches
from mlaas4hep_dask.config.specs import SpecsPass
from mlaas4hep_dask.config.target import Target

__all__ = [
    "Branches",
    "Cluster",
    "Config",
    "DataFile",
    "Encoding",
    "Image",
    "Model",
    "Partitioning",
    "Reading",
    "Recorded",
    "Sample",
    "Selection",
    "SpecsPass",
    "Split",
    "Target",
    "Training",
    "check_collections",
    "expand_files",
    "json_schema",
    "load",
    "reading_of",
    "resolve_files",
    "select_branches",
]
