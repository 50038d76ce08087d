"""Dense rows of packed events, on the device that learns from them: so fewer bytes go there.

Plain operations of torch, which run wherever torch does. On a CPU they write bit for bit what
`mlaas4hep_dask.encode.packed.Packed.dense` does, which is faster there.
"""

from __future__ import annotations

from itertools import groupby
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mlaas4hep_dask.encode.encoded import Encoded
from mlaas4hep_dask.encode.encoded_images import EncodedImages


def write_rows(
    events: Encoded | EncodedImages,
    positions: NDArray[np.int64],
    x: torch.Tensor,
    missing: torch.Tensor | None = None,
) -> None:
    """Write the dense rows, or images, of all events, and their missing mask.

    Parameters
    ----------
    events : Encoded or EncodedImages
        Packed events. A GPU copies them through pinned memory, and nobody waits for that.
    positions : ndarray of int64, shape (events,)
        Row of ``x`` for each event.
    x : Tensor of float32, shape (at least max(positions) + 1, …)
        Receives them; contiguous, on any device. The rows that are written hold 0 before.
    missing : Tensor of bool, of the same shape and device, optional
        Receives the mask; the rows that are written hold True before.
    """
    if len(events) == 0:
        return
    first = sent(positions * x[0].numel(), x.device)  # cell with which each event's row begins
    if isinstance(events, Encoded):
        cells, values = _of_rows(events, first)
    else:
        cells, values = _of_images(events, first)
    is_missing = values.isnan()
    x.view(-1).index_copy_(0, cells, values.masked_fill(is_missing, 0.0))
    if missing is not None:
        missing.view(-1).index_copy_(0, cells, is_missing)


def sent(array: NDArray[Any], device: torch.device) -> torch.Tensor:
    """An array as a tensor on a device; a GPU copies it while this thread goes on."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    if device.type == "cuda":  # torch keeps pinned memory until what is copied from it has arrived
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def host(rows: Any) -> NDArray[Any]:
    """Rows that may be a tensor on a device, as an array in the memory of the CPU."""
    return rows.cpu().numpy() if isinstance(rows, torch.Tensor) else rows


def _of_rows(events: Encoded, first: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Cells of all rows together that hold a value, and the values."""
    device, layout = first.device, events.layout
    columns = torch.arange(len(layout.flat), device=device)
    cells = [(columns[:, None] + first).view(-1)]
    begins = [_begins(starts, first) for starts in events.offsets]  # by collection
    branches = zip(layout.collection_rows.tolist(), layout.first_columns.tolist(), strict=True)
    for row, run in groupby(branches, lambda branch: branch[0]):
        columns = sent(np.array([column for _, column in run]), device)
        cells.append((columns[:, None] + begins[row]).view(-1))
    return torch.cat(cells), sent(events.values, device)


def _begins(offsets: NDArray[np.int64], first: torch.Tensor) -> torch.Tensor:
    """By object of a collection: its cell in a branch whose first column is 0."""
    num_objects = int(offsets[-1])
    starts = sent(offsets, first.device)
    shifts = torch.repeat_interleave(first - starts[:-1], starts.diff(), output_size=num_objects)
    return shifts + torch.arange(num_objects, device=first.device)


def _of_images(events: EncodedImages, first: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """As `_of_rows`, where flat values fill a channel each, after all others."""
    device, starts = first.device, sent(events.offsets, first.device)
    num_entries, (channels, height, width) = len(events.cells), events.image.shape
    begins = torch.repeat_interleave(first, starts.diff(), output_size=num_entries)
    plane, num_flat = height * width, events.flat.shape[1]
    filled = torch.arange((channels - num_flat) * plane, channels * plane, device=device)
    flat = sent(events.flat, device).repeat_interleave(plane, dim=1)
    cells = begins + sent(events.cells, device), (first[:, None] + filled).view(-1)
    return torch.cat(cells), torch.cat([sent(events.values, device), flat.view(-1)])
