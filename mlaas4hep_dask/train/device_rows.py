"""Windows whose dense rows are made on the device that learns from them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mlaas4hep_dask.encode.encoded import Encoded
from mlaas4hep_dask.encode.encoded_images import EncodedImages
from mlaas4hep_dask.encode.packed import Packed
from mlaas4hep_dask.train.densify import write_rows
from mlaas4hep_dask.train.feed import Rows


class DeviceRows(Rows):
    """As `Rows`, in the memory of a device, to which packed events go.

    A GPU does so in a stream of its own, beside the steps that learn from the window before:

    1. the feed's thread lets that stream wait until the steps of the window that had the memory
       before are over, then copy packed events and write dense rows, then mark the window;
    2. the training's thread lets its own stream wait for that mark before the first step;
    3. after the last step it marks that the memory may be written again.

    Neither thread waits for the GPU in this.

    Parameters
    ----------
    shape, num_buffers, with_missing
        As of `Rows`.
    device : torch.device
        Where.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        num_buffers: int,
        *,
        with_missing: bool,
        device: torch.device,
    ) -> None:
        self._device = device
        self._stream: Any = None
        if device.type == "cuda":
            cuda: Any = torch.cuda  # untyped there
            self._stream = cuda.Stream(device)
            self._are_written = [cuda.Event() for _ in range(num_buffers)]
            self._are_used = [cuda.Event() for _ in range(num_buffers)]
        with self._beside():
            self._x: Any = [torch.empty(shape, device=device) for _ in range(num_buffers)]
            self._missing: Any = [
                torch.empty(shape, dtype=torch.bool, device=device)
                for _ in range(num_buffers * with_missing)
            ]

    def _beside(self) -> AbstractContextManager[Any]:
        """In which all is done beside the steps."""
        return nullcontext() if self._stream is None else torch.cuda.stream(self._stream)

    @contextmanager
    def written(self, number: int, size: int) -> Iterator[tuple[Any, Any]]:
        """As `Rows.written`."""
        place = number % len(self._x)
        x = self._x[place][:size]
        missing = self._missing[place][:size] if self._missing else None
        with self._beside():
            if self._stream is not None:
                self._stream.wait_event(self._are_used[place])
            x.zero_()
            if missing is not None:
                missing.fill_(True)
            yield x, missing
            if self._stream is not None:
                self._are_written[place].record(self._stream)

    def write(
        self,
        events: Packed,
        rows: NDArray[np.int64],
        positions: NDArray[np.int64],
        x: Any,
        missing: Any,
    ) -> None:
        """As `Rows.write`."""
        taken = events.taken(rows)
        assert isinstance(taken, Encoded | EncodedImages)  # there are no others
        write_rows(taken, positions, x, missing)

    @contextmanager
    def used(self, number: int) -> Iterator[None]:
        """As `Rows.used`."""
        if self._stream is None:
            yield
            return
        place, steps = number % len(self._x), torch.cuda.current_stream(self._device)
        steps.wait_event(self._are_written[place])
        for rows in (self._x, self._missing):
            for each in rows[place : place + 1]:
                each.record_stream(steps)  # so that its memory outlives steps that go on
        try:
            yield
        finally:
            self._are_used[place].record(steps)
