"""When training ends and which epoch is kept, told by the records of the epochs alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Records = Sequence[Mapping[str, Any]]  # one per epoch, in order


@dataclass(frozen=True)
class Course:
    """What a training goes by.

    Parameters
    ----------
    epochs : int
        After so many it ends.
    keeps_best : bool
        The network of the best epoch is kept, not that of the last.
    monitor : str
        Metric of the validation events by which an epoch is better than another.
    is_more_better : bool
        Whether it is to be large.
    patience : int or None
        Epochs in a row without a better one, after which training ends early.
    """

    epochs: int
    keeps_best: bool = True
    monitor: str = "loss"
    is_more_better: bool = False
    patience: int | None = None

    def best(self, records: Records) -> int:
        """Number of the first epoch of which none is better; of the last, where none is known."""
        best, number = math.inf, len(records)
        for epoch, record in enumerate(records, 1):
            value = self._badness(record)
            if value < best:
                best, number = value, epoch
        return number

    def kept(self, records: Records) -> int:
        """Number of the epoch of which the network is kept."""
        return self.best(records) if self.keeps_best else len(records)

    def is_over(self, records: Records) -> bool:
        """Whether there is no further epoch."""
        if len(records) >= self.epochs or (records and records[-1].get("stopped")):
            return True
        return self.patience is not None and len(records) - self.best(records) >= self.patience

    def _badness(self, record: Mapping[str, Any]) -> float:
        value: float | None = record.get("validation", {}).get(self.monitor)
        if value is None or math.isnan(value):
            return math.inf
        return -value if self.is_more_better else value
