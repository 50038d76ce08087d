"""Check: what a cluster and its site can do, looked at with one worker of each group."""

from mlaas4hep_dask.cluster.check.lines import Line, as_json, as_text, is_red

__all__ = ["Line", "as_json", "as_text", "is_red"]
