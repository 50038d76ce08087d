"""Command: what all verbs of the command line have in common."""

from mlaas4hep_dask.command.ends import (
    announce,
    ended_by_signals,
    may_be_cut,
    signals_wait,
    status_of,
)
from mlaas4hep_dask.command.verb import (
    DIFFERENT,
    FAULT,
    SUCCESS,
    TROUBLE,
    Group,
    Verb,
    arguments_of,
    count_option,
    exit_status,
    line_of,
    process,
    start_log,
    status,
    verbose_option,
    version_option,
)

__all__ = [
    "DIFFERENT",
    "FAULT",
    "SUCCESS",
    "TROUBLE",
    "Group",
    "Verb",
    "announce",
    "arguments_of",
    "count_option",
    "ended_by_signals",
    "exit_status",
    "line_of",
    "may_be_cut",
    "process",
    "signals_wait",
    "start_log",
    "status",
    "status_of",
    "verbose_option",
    "version_option",
]
