"""Tasks that must run together, such as ranks, and the blocks that they use."""

from mlaas4hep_dask.gang.attempts import Attempts
from mlaas4hep_dask.gang.gang import Gang
from mlaas4hep_dask.gang.keeping import Keeping, keep
from mlaas4hep_dask.gang.source import KeptBlocks, forget_sources, known_counts

__all__ = ["Attempts", "Gang", "Keeping", "KeptBlocks", "forget_sources", "keep", "known_counts"]
