"""A lazy dask-awkward view of the events, which reads only the branches that are touched."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import awkward as ak
import dask_awkward
import numpy as np
from dask_awkward.lib.io.columnar import ColumnProjectionMixin

from mlaas4hep_dask.events import Branch
from mlaas4hep_dask.inputs.prepare import Preparation, prepare
from mlaas4hep_dask.reader import Partition


class _ReadPartition(ColumnProjectionMixin):  # type: ignore[misc]  # dask-awkward is not annotated
    """Prepares one partition as awkward records; dask-awkward asks it for fewer branches."""

    use_optimization = True
    behavior = None
    attrs = None

    def __init__(self, preparation: Preparation, branches: Sequence[Branch]) -> None:
        self.preparation = preparation
        self.branches = tuple(branches)

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
        keep = [branch.name for branch in self.branches if branch.name in columns]
        return _ReadPartition(self.preparation.fewer(keep), self.branches)

    def __call__(self, partition: Partition) -> ak.Array:
        return prepare(partition, self.preparation).events.to_awkward()


def awkward_view(
    partitions: Sequence[Partition], preparation: Preparation, branches: Sequence[Branch]
) -> Any:
    """A dask-awkward array with one partition per planned partition, nothing read yet.

    How many events a selection leaves is not known before they are read.
    """
    edges = np.cumsum([0, *map(len, partitions)])
    is_whole = not preparation.recipe.cuts
    return dask_awkward.from_map(
        _ReadPartition(preparation.fewer([branch.name for branch in branches]), branches),
        list(partitions),
        label="events",
        divisions=tuple(int(edge) if is_whole else None for edge in edges),
    )
