"""Raw columns: the values of events where a row has them, before normalisation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mlaas4hep_dask.encode.encoding import Encoding
from mlaas4hep_dask.encode.order import sort_objects
from mlaas4hep_dask.events import Events


def raw_columns(events: Events, encoding: Encoding) -> NDArray[np.float64]:
    """Values as in the files, in the columns of the layout: what a bundle's ``model.pt`` takes.

    Parameters
    ----------
    events : Events
        Events with at least the branches of the encoding, after derived branches and object cuts.
    encoding : Encoding
        Of rows.

    Returns
    -------
    ndarray of float64, shape (events, columns)
        NaN where there is no object or no value.
    """
    layout = encoding.layout
    columns = np.full((len(events), layout.num_columns), np.nan)
    for column, name in enumerate(layout.flat):
        columns[:, column] = events.contents[name]
    orders = {
        sort.collection: sort_objects(
            events.contents[sort.branch.name], events.offsets[sort.collection], sort.is_descending
        )
        for sort in encoding.sorts
    }
    for branch, first in zip(layout.jagged, layout.first_columns.tolist(), strict=True):
        content, offsets = events.contents[branch.name], events.offsets[branch.collection]
        multiplicities = np.diff(offsets)
        of_event = np.repeat(np.arange(len(events)), multiplicities)
        place = np.arange(content.size) - np.repeat(offsets[:-1], multiplicities)
        if branch.collection in orders:
            content = content[orders[branch.collection]]
        kept = place < branch.width
        columns[of_event[kept], first + place[kept]] = content[kept]
    return columns
