"""Encoded images: the occupied cells of every event, and the dense images they stand for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlaas4hep_dask.encode import image_kernels as kernels
from mlaas4hep_dask.encode.counts import EncodeCounts
from mlaas4hep_dask.encode.encoding import Encoding
from mlaas4hep_dask.encode.image import CODES, Image
from mlaas4hep_dask.encode.normalise import normalised
from mlaas4hep_dask.encode.packed import Packed
from mlaas4hep_dask.events import Events
from mlaas4hep_dask.events.events import offsets_of
from mlaas4hep_dask.events.lengths import require_length, require_offsets
from mlaas4hep_dask.events.runs import copied, runs_of

FACTORS = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)  # of granularity, that are tried
FEW_SHARED = 0.01  # fraction of objects that may share a cell at the suggested granularity


@dataclass(frozen=True)
class EncodedImages(Packed):
    """Encoded events as the cells that are not empty.

    Parameters
    ----------
    num_events : int
        Number of events.
    image : Image
        What the cells mean.
    offsets : ndarray of int64, shape (events + 1,)
        Where each event's entries begin.
    cells : ndarray of int32, shape (entries,)
        Position in the image, row by row and channel by channel.
    values : ndarray of float32, shape (entries,)
        What stands there.
    flat : ndarray of float32, shape (events, flat branches)
        Normalised values that fill a channel each; NaN is missing.
    counts : EncodeCounts
        What became missing, lay outside or shares a cell.

    Raises
    ------
    DataError
        When an array has another length than the others say; also on arrival from elsewhere.
    """

    num_events: int
    image: Image
    offsets: NDArray[np.int64]
    cells: NDArray[np.int32]
    values: NDArray[np.float32]
    flat: NDArray[np.float32]
    counts: EncodeCounts = field(default_factory=EncodeCounts)

    def __post_init__(self) -> None:
        require_offsets("cells of encoded images", self.offsets, self.num_events)
        require_length("cells of encoded images", self.cells, int(self.offsets[-1]))
        require_length("values of encoded images", self.values, int(self.offsets[-1]))
        require_length("flat values of encoded images", self.flat, self.num_events)

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        arrays = (self.offsets, self.cells, self.values, self.flat)
        return sum(array.nbytes for array in arrays)

    @property
    def _row_shape(self) -> tuple[int, ...]:
        return self.image.shape

    def _write(
        self,
        rows: NDArray[np.int64] | None,
        positions: NDArray[np.int64] | None,
        x: NDArray[np.float32] | None,
        missing: NDArray[np.bool_] | None,
    ) -> None:
        """As `Packed._write`, to contiguous arrays.

        The mask is True in cells without an object, and in the channel of a flat branch where the
        value is missing.
        """
        rows = np.arange(self.num_events) if rows is None else rows
        positions = np.arange(rows.size) if positions is None else positions
        channels, height, width = self.image.shape
        for out in (x, missing):
            if out is None:
                continue
            # A copy would receive the images instead of ``out``.
            flat_view = np.reshape(out, (len(out), channels * height * width), copy=False)
            kernels.scatter_cells(
                self.offsets,
                self.cells,
                self.values,
                self.flat,
                height * width,
                rows,
                positions,
                out is missing,
                flat_view,
            )

    def chosen(self, selected: NDArray[np.bool_]) -> EncodedImages:
        """A copy of the events where ``selected``, shape (events,), is True; without counts."""
        return self._copy(runs_of(selected), np.flatnonzero(selected))

    def taken(self, rows: NDArray[np.int64]) -> EncodedImages:
        """As `Packed.taken`."""
        return self._copy((rows, rows + 1), rows)

    def _copy(
        self, runs: tuple[NDArray[np.int64], NDArray[np.int64]], rows: NDArray[np.int64]
    ) -> EncodedImages:
        """A copy of runs of events, which are those of ``rows``."""
        first, last = (self.offsets[ends] for ends in runs)
        offsets = offsets_of(self.offsets[rows + 1] - self.offsets[rows])
        cells, values = copied(self.cells, first, last), copied(self.values, first, last)
        return EncodedImages(rows.size, self.image, offsets, cells, values, self.flat[rows])

    def overflow(self) -> tuple[int, str] | None:
        """Event and channel of the first value that is too large for float32, if there is one."""
        infinite = np.flatnonzero(np.isinf(self.values))
        if infinite.size:
            _, height, width = self.image.shape
            event = int(np.searchsorted(self.offsets, infinite[0], side="right")) - 1
            channel = int(self.cells[infinite[0]]) // (height * width)
            return event, self.image.channels[channel].value or ""
        events, branches = np.nonzero(np.isinf(self.flat))
        if events.size:
            return int(events[0]), self.image.flat[int(branches[0])]
        return None


def encode_images(events: Events, encoding: Encoding) -> EncodedImages:
    """Events as images.

    Parameters
    ----------
    events : Events
        Events with at least the branches of the image.
    encoding : Encoding
        Has an image.
    """
    image = encoding.image
    assert image is not None  # `encode` looks
    drawing = _Drawing(events, image)
    parts: dict[str, NDArray[np.float32]] = {}
    not_finite, out_of_range = drawing.not_finite, drawing.out_of_range
    scalings = dict(zip(encoding.layout.branches, encoding.scalings, strict=True))
    value_branches = [channel.value for channel in image.channels if channel.value is not None]
    for name in dict.fromkeys([*value_branches, *image.flat]):
        parts[name], num_missing, num_outside = normalised(events.contents[name], scalings[name])
        if num_missing:
            not_finite[name] = max(num_missing, not_finite.get(name, 0))
        if num_outside and name not in drawing.coordinates:
            out_of_range[name] = num_outside
    flat = np.empty((events.num_events, len(image.flat)), dtype=np.float32)
    for place, name in enumerate(image.flat):
        flat[:, place] = parts[name]
    counts = EncodeCounts(
        not_finite, out_of_range, off_image=drawing.lost, shared_cell=drawing.num_shared()
    )
    offsets, cells, values = _pack(events, image, drawing, parts)
    return EncodedImages(events.num_events, image, offsets, cells, values, flat, counts)


class _Drawing:
    """The cells of all objects in all planes."""

    def __init__(self, events: Events, image: Image) -> None:
        self.not_finite: dict[str, int] = {}
        self.out_of_range: dict[str, int] = {}
        self.lost: dict[str, int] = {}
        self.coordinates: set[str] = set()
        self.events = events
        self.image = image
        self.planes: dict[tuple[str, tuple[str, str]], NDArray[np.int32]] = {}
        _, height, width = image.shape
        self._size = height * width
        for collection in image.collections:
            along = {
                name: self._along(name, axis.branches[collection])
                for name, axis in image.axes.items()
            }
            for plane, first in zip(image.planes, image.first_cells, strict=True):
                x, y = along[plane[0]], along[plane[1]]
                cells = np.empty(x.size, dtype=np.int32)
                num_lost = kernels.plane_cells(x, y, width, first, cells)
                self.planes[collection, plane] = cells
                if num_lost:
                    self.lost[image.plane_name(collection, plane)] = num_lost

    def _along(self, name: str, branch: str) -> NDArray[np.int32]:
        axis = self.image.axes[name]
        content = self.events.contents[branch]
        self.coordinates.add(branch)
        cells = np.empty(content.size, dtype=np.int32)
        num_missing, num_outside = kernels.axis_cells(content, axis.edges, axis.is_periodic, cells)
        if num_missing:
            self.not_finite[branch] = num_missing
        if num_outside:
            self.out_of_range[branch] = num_outside
        return cells

    def num_shared(self) -> dict[str, int]:
        """By plane: objects in a cell that an earlier object of their event is in."""
        shared = {
            self.image.plane_name(collection, plane): kernels.count_shared(
                self.events.offsets[collection], cells, self._size
            )
            for (collection, plane), cells in self.planes.items()
        }
        return {name: number for name, number in shared.items() if number}

    def num_inside(self) -> dict[str, int]:
        """By plane: objects in one of its cells."""
        return {
            self.image.plane_name(collection, plane): int(np.count_nonzero(cells >= 0))
            for (collection, plane), cells in self.planes.items()
        }


def _pack(
    events: Events, image: Image, drawing: _Drawing, parts: dict[str, NDArray[np.float32]]
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]:
    """Offsets, cells and values of the entries, for every plane of every channel."""
    rows = {name: row for row, name in enumerate(image.collections)}
    offsets = np.zeros((len(rows), events.num_events + 1), dtype=np.int64)
    for name, row in rows.items():
        offsets[row] = events.offsets[name]
    cell_starts = dict(zip(drawing.planes, _starts(drawing.planes.values()), strict=True))
    value_starts = dict(zip(parts, _starts(parts.values()), strict=True))
    channels, height, width = image.shape
    layers = [
        (
            cell_starts[channel.collection, plane],
            0 if channel.value is None else value_starts[channel.value],
            rows[channel.collection],
            CODES[channel.combine],
            number * height * width,
        )
        for number, channel in enumerate(image.channels)
        for plane in image.planes
    ]
    columns = np.array(layers, dtype=np.int64).reshape(-1, 5).T.copy()
    limit = int(offsets[columns[2], -1].sum())
    out_offsets = np.empty(events.num_events + 1, dtype=np.int64)
    out_cells = np.empty(limit, dtype=np.int32)
    out_values = np.empty(limit, dtype=np.float64)
    number = kernels.pack(
        offsets,
        np.concatenate([*drawing.planes.values(), np.empty(0, np.int32)]),
        columns[0],
        np.concatenate([*parts.values(), np.empty(0, np.float32)]),
        columns[1],
        columns[2],
        columns[3],
        columns[4],
        channels * height * width,
        out_offsets,
        out_cells,
        out_values,
    )
    with np.errstate(over="ignore"):  # infinity is looked for by `overflow`
        values = out_values[:number].astype(np.float32)
    return out_offsets, out_cells[:number].copy(), values


def _starts(arrays: Any) -> Iterator[int]:
    start = 0
    for array in arrays:
        yield start
        start += array.size


def granularity(events: Events, image: Image) -> dict[str, dict[str, list[int]]]:
    """How many objects share a cell if there were more or fewer cells.

    Returns
    -------
    dict
        By plane, then by factor on the number of cells of each axis (`FACTORS`, as text): the
        objects in the plane, and those in a cell that an earlier object of their event is in.
        Numbers of several partitions are added.
    """
    tried: dict[str, dict[str, list[int]]] = {}
    for factor in FACTORS:
        drawing = _Drawing(events, image.with_cells(factor))
        shared = drawing.num_shared()
        for name, inside in drawing.num_inside().items():
            tried.setdefault(name, {})[f"{factor:g}"] = [inside, shared.get(name, 0)]
    return tried


def suggested_factor(tried: dict[str, list[int]]) -> float | None:
    """The least factor at which fewer than 1 % of the objects share a cell, if one does it."""
    for factor in sorted(tried, key=float):
        inside, shared = tried[factor]
        if shared < FEW_SHARED * inside or inside == 0:
            return float(factor)
    return None
