"""Some of the training events of an epoch, kept to be measured as validation events are."""

from __future__ import annotations

import math

import numpy as np

from mlaas4hep_dask.train.feed import Window

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
            missing = None if window.missing is None else window.missing[:size].copy()
            x, y, w = (array[:size].copy() for array in (window.x, window.y, window.w))
            no_steps = window.bounds[:0], window.step_sizes[:0]
            self._parts.append(Window(x, missing, y, w, *no_steps))

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
