"""Scores of events, with what encoding could not keep of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mlaas4hep_dask.encode import EncodeCounts


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores of some events.

    Parameters
    ----------
    values : ndarray of float32, shape (events,) or (events, outputs)
        In the order of the events.
    counts : EncodeCounts
        What encoding could not keep.
    ignored : frozenset of str
        Names in the events that the model does not use.
    """

    values: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, dtype=np.float32))
    counts: EncodeCounts = field(default_factory=EncodeCounts)
    ignored: frozenset[str] = frozenset()

    @classmethod
    def together(cls, parts: Sequence[Scores]) -> Scores:
        """Those of the parts of one request."""
        if len(parts) == 1:
            return parts[0]
        return cls(
            np.concatenate([part.values for part in parts]),
            sum((part.counts for part in parts), EncodeCounts()),
            frozenset[str]().union(*(part.ignored for part in parts)),
        )
