"""A lazy dask-awkward view of the events, which reads only the branches that are touched."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import awkward as ak
import dask_awkward
import numpy as np
from dask_awkward.lib.io.columnar import ColumnProjectionMixin

from mlaas4hep_dask.reader import Partition, read
from mlaas4hep_dask.specs import Branch


class _ReadPartition(ColumnProjectionMixin):  # type: ignore[misc]  # dask-awkward is not annotated
    """Reads one partition as awkward records; dask-awkward asks it for fewer branches."""

    use_optimization = True
    behavior = None
    attrs = None

    def __init__(self, branches: Sequence[Branch], asked: frozenset[str] | None = None) -> None:
        self.branches = tuple(branches)
        self.asked = asked

    @property
    def form(self) -> Any:
        """The awkward form of a partition with all branches."""
        contents = []
        for branch in self.branches:
            content: Any = ak.forms.NumpyForm(np.dtype(branch.dtype).name)
            if branch.kind == "jagged":
                content = ak.forms.ListOffsetForm("i64", content)
            contents.append(content)
        return ak.forms.RecordForm(contents, [branch.name for branch in self.branches])

    def project_columns(self, columns: frozenset[str]) -> _ReadPartition:
        """The same reader, of only these branches."""
        return _ReadPartition(self.branches, columns)

    def __call__(self, partition: Partition) -> ak.Array:
        wanted = [b for b in self.branches if self.asked is None or b.name in self.asked]
        return read(partition, wanted).to_awkward()


def awkward_view(partitions: Sequence[Partition], branches: Sequence[Branch]) -> Any:
    """A dask-awkward array with one partition per planned partition, nothing read yet."""
    edges = np.cumsum([0, *map(len, partitions)])
    return dask_awkward.from_map(
        _ReadPartition(branches),
        list(partitions),
        label="events",
        divisions=tuple(int(edge) for edge in edges),
    )
