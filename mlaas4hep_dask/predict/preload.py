"""Importing this module makes a process ready to score partitions."""

from mlaas4hep_dask.predict import tasks as tasks  # what workers run, with torch
