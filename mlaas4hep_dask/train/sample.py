"""Some of the training events of an epoch, kept to be measured as validation events are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from mlaas4hep_dask.train.densify import host
from mlaas4hep_dask.train.feed import Window

ROWS = ("x", "missing", "y", "w")
NO_STEPS = (np.zeros(0, np.int64), np.zeros(0, np.int64))  # bounds and sizes
MIN_EVENTS = 2048
MAX_BYTES = 32 * 2**20  # of rows


class Sample:
    """Copies of the first rows of every window; as windows are shuffled, any rows may be first.

    Parameters
    ----------
    num_events : int
        Training events of the rank in an epoch.
    num_measured : int
        Events that are measured anyway, of validation: here are about as many.
    row_shape : tuple of int
        Shape of one event.
    """

    def __init__(self, num_events: int, num_measured: int, row_shape: tuple[int, ...]) -> None:
        room = MAX_BYTES // (4 * math.prod(row_shape))
        self._num_events = num_events
        self._size = min(num_events, max(num_measured, MIN_EVENTS), max(room, 1))
        self._num_seen = 0
        self._parts: list[Window] = []

    def add(self, window: Window) -> None:
        """Take some rows of a window."""
        before = self._num_seen * self._size // max(self._num_events, 1)
        self._num_seen += len(window.y)
        size = self._num_seen * self._size // max(self._num_events, 1) - before
        if size:
            missing = None if window.missing is None else host(window.missing[:size]).copy()
            x, y, w = (host(rows[:size]).copy() for rows in (window.x, window.y, window.w))
            self._parts.append(Window(x, missing, y, w, *NO_STEPS))

    def state(self) -> dict[str, Any]:
        """For a checkpoint: tensors and numbers."""
        kept = self.window()
        arrays = {} if kept is None else {name: getattr(kept, name) for name in ROWS}
        tensors = {
            name: torch.from_numpy(array) for name, array in arrays.items() if array is not None
        }
        return {"num_seen": self._num_seen, **tensors}

    def take_up(self, states: Sequence[Mapping[str, Any]]) -> None:
        """Go on from one or several states."""
        for state in states:
            self._num_seen += state["num_seen"]
            if "y" in state:
                rows: list[Any] = [state[n].numpy() if n in state else None for n in ROWS]
                x, missing, y, w = rows
                self._parts.append(Window(x, missing, y, w, *NO_STEPS))

    def window(self) -> Window | None:
        """All of them; None where there is no event."""
        if not self._parts:
            return None
        parts = self._parts
        masks = [part.missing for part in parts if part.missing is not None]
        return Window(
            np.concatenate([part.x for part in parts]),
            np.concatenate(masks) if masks else None,
            np.concatenate([part.y for part in parts]),
            np.concatenate([part.w for part in parts]),
            parts[0].bounds,
            parts[0].step_sizes,
        )
