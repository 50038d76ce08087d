"""Writer: events to ROOT and Parquet files, which appear whole or not at all."""

from mlaas4hep_dask.formats import RootFormat
from mlaas4hep_dask.writer.decoded import decode_to_file, decoded_branches, decoded_events
from mlaas4hep_dask.writer.output import EventFile, check_output, write_events

__all__ = [
    "EventFile",
    "RootFormat",
    "check_output",
    "decode_to_file",
    "decoded_branches",
    "decoded_events",
    "write_events",
]
