"""Encode: normalised events in packed form, and the dense rows they stand for."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mlaas4hep_dask.encode import kernels
from mlaas4hep_dask.encode.counts import EncodeCounts
from mlaas4hep_dask.encode.encoded_images import EncodedImages, encode_images
from mlaas4hep_dask.encode.encoding import Encoding
from mlaas4hep_dask.encode.layout import Layout
from mlaas4hep_dask.encode.normalise import normalise_into
from mlaas4hep_dask.encode.order import sort_objects
from mlaas4hep_dask.encode.packed import Packed
from mlaas4hep_dask.encode.scatter import scatter
from mlaas4hep_dask.errors import DataError, EncodeError
from mlaas4hep_dask.events import Events
from mlaas4hep_dask.events.lengths import disagreement, require_offsets
from mlaas4hep_dask.events.runs import copied, runs_of


@dataclass(frozen=True)
class Encoded(Packed):
    """Encoded events without their padding, about a quarter of the dense rows in size.

    This is the form in which blocks are kept and moved; `dense` and `missing` are made where
    they are used.

    Parameters
    ----------
    num_events : int
        Number of events.
    layout : Layout
        Columns of the dense rows.
    values : ndarray of float32, shape (values,)
        Normalised contents of all branches, one branch after the other; NaN is missing.
    starts : ndarray of int64, shape (branches,)
        Where each branch's contents begin in ``values``.
    offsets : ndarray of int64, shape (collections, events + 1)
        Where each event's objects begin within a branch's contents; those beyond the width of
        the collection are cut off.
    counts : EncodeCounts
        What became missing, lay outside the specs or is cut off in the dense rows.

    Raises
    ------
    DataError
        When an array has another length than the others say; also on arrival from elsewhere.
    """

    num_events: int
    layout: Layout
    values: NDArray[np.float32]
    starts: NDArray[np.int64]
    offsets: NDArray[np.int64]
    counts: EncodeCounts = field(default_factory=EncodeCounts)

    def __post_init__(self) -> None:
        layout = self.layout
        expected = (len(layout.collections), self.num_events + 1)
        if self.offsets.shape != expected:
            raise disagreement("offsets of encoded events", self.offsets.shape, expected)
        for name, starts in zip(layout.collections, self.offsets, strict=True):
            require_offsets(f"encoded collection {name!r}", starts, self.num_events)
            largest, width = int(np.diff(starts).max(initial=0)), layout.collection_widths[name]
            if largest > width:
                raise DataError(
                    f"encoded collection {name!r} has {largest} objects in an event, and room for "
                    f"{width}"
                )
        ends = np.zeros(len(layout.branches) + 1, dtype=np.int64)
        ends[1 : len(layout.flat) + 1] = self.num_events
        ends[len(layout.flat) + 1 :] = self.offsets[layout.collection_rows, -1]
        np.cumsum(ends, out=ends)
        if not np.array_equal(self.starts, ends[:-1]):
            raise DataError("encoded branches do not begin where the ones before them end")
        if self.values.shape != (int(ends[-1]),):
            raise disagreement("values of encoded events", self.values.shape, (int(ends[-1]),))

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self.values.nbytes + self.starts.nbytes + self.offsets.nbytes

    def multiplicities(self) -> NDArray[np.int64]:
        """Number of objects kept, shape (collections, events): at most the collection's width."""
        return np.diff(self.offsets, axis=1)

    def contents(self) -> dict[str, NDArray[np.float32]]:
        """Encoded values of each branch, without padding; NaN is missing."""
        parts = np.split(self.values, self.starts[1:]) if self.starts.size else []
        return dict(zip(self.layout.branches, parts, strict=True))

    def chosen(self, selected: NDArray[np.bool_]) -> Encoded:
        """A copy of the events where ``selected``, shape (events,), is True; without counts."""
        return self._copy(runs_of(selected), self.multiplicities()[:, selected])

    def taken(self, rows: NDArray[np.int64]) -> Encoded:
        """As `Packed.taken`."""
        ends = rows + 1
        return self._copy((rows, ends), self.offsets[:, ends] - self.offsets[:, rows])

    def _copy(
        self, runs: tuple[NDArray[np.int64], NDArray[np.int64]], counts: NDArray[np.int64]
    ) -> Encoded:
        """A copy of runs of events, which have so many objects, shape (collections, events)."""
        offsets = np.zeros((counts.shape[0], counts.shape[1] + 1), dtype=np.int64)
        np.cumsum(counts, axis=1, out=offsets[:, 1:])
        num_flat = len(self.layout.flat)
        parts = []
        for index, start in enumerate(self.starts.tolist()):
            first, last = runs
            if index >= num_flat:
                ends = self.offsets[self.layout.collection_rows[index - num_flat]]
                first, last = ends[first], ends[last]
            parts.append(copied(self.values[start:], first, last))
        starts = np.zeros_like(self.starts)
        np.cumsum([part.size for part in parts[:-1]], out=starts[1:])
        values = np.concatenate(parts) if parts else self.values
        return Encoded(counts.shape[1], self.layout, values, starts, offsets)

    def overflow(self) -> tuple[int, str] | None:
        """Event and branch of the first value that is too large for float32, if there is one."""
        infinite = np.flatnonzero(np.isinf(self.values))  # NaN is missing
        if infinite.size == 0:
            return None
        position, layout = int(infinite[0]), self.layout
        index = int(np.searchsorted(self.starts, position, side="right")) - 1
        event = position - int(self.starts[index])
        if index >= len(layout.flat):
            offsets = self.offsets[layout.collection_rows[index - len(layout.flat)]]
            event = int(np.searchsorted(offsets, event, side="right")) - 1
        return event, layout.branches[index]

    @property
    def _row_shape(self) -> tuple[int, ...]:
        return (self.layout.num_columns,)

    def _write(
        self,
        rows: NDArray[np.int64] | None,
        positions: NDArray[np.int64] | None,
        x: NDArray[np.float32] | None,
        missing: NDArray[np.bool_] | None,
    ) -> None:
        rows, layout = _places("rows", rows, self.num_events, self.num_events), self.layout
        outs = [out for out in (x, missing) if out is not None]
        positions = _places("positions", positions, rows.size, min(map(len, outs)))
        for out in outs:
            if positions.shape != rows.shape or out.shape[1:] != self._row_shape:
                raise ValueError(
                    f"{rows.shape} rows of {layout.num_columns} columns do not go to "
                    f"{positions.shape} positions in an array of shape {out.shape}"
                )
        if x is not None and not (x.dtype == np.float32 and x.flags.carray):
            x[positions], x = self.dense(rows), None
        if missing is not None and not (missing.dtype == np.bool_ and missing.flags.carray):
            missing[positions], missing = self.missing(rows), None
        if x is None and missing is None:
            return
        scatter(
            np.ascontiguousarray(self.values, np.float32),
            np.ascontiguousarray(self.starts, np.int64),
            np.ascontiguousarray(self.offsets, np.int64),
            len(layout.flat),
            layout.collection_rows,
            layout.first_columns,
            rows,
            positions,
            x,
            None if missing is None else missing.view(np.uint8),
        )


def _places(what: str, places: NDArray[np.int64] | None, num: int, size: int) -> NDArray[np.int64]:
    """Places below ``size``, by default the first ``num``, for a kernel that does not look."""
    if places is None and num <= size:
        return np.arange(num)
    places = np.asarray(np.arange(num) if places is None else places)
    if places.size and not 0 <= places.min() <= places.max() < size:
        raise IndexError(f"{what} from {places.min()} to {places.max()}, of {size}")
    return places.astype(np.int64, casting="same_kind" if places.size else "unsafe", copy=False)


def encode(events: Events, encoding: Encoding) -> Encoded | EncodedImages:
    """Encoded events; training and serving both call this.

    Parameters
    ----------
    events : Events
        Events with at least the branches of the encoding.
    encoding : Encoding
        Layout and normalisation.

    Raises
    ------
    EncodeError
        When a branch that the encoding reads is not among the events, or of another kind.
    DataError
        When an array of the events has another length than the others say.
    """
    events.checked()
    _require_branches(events, encoding)
    if encoding.image is not None:
        return encode_images(events, encoding)
    return encode_rows(events, encoding)


def encode_rows(events: Events, encoding: Encoding) -> Encoded:
    """Events as rows, though the encoding may have an image; see `encode`."""
    layout = encoding.layout
    orders = {
        sort.collection: sort_objects(
            events.contents[sort.branch.name], events.offsets[sort.collection], sort.is_descending
        )
        for sort in encoding.sorts
    }
    offsets = np.empty((len(layout.collections), events.num_events + 1), dtype=np.int64)
    truncated: dict[str, int] = {}
    ranges: dict[str, tuple[NDArray[np.int64], NDArray[np.int64]]] = {}  # of what is truncated
    widths = layout.collection_widths
    for row, name in enumerate(layout.collections):
        ends_of_events = events.offsets[name]
        offsets[row] = ends_of_events
        if widths[name] < np.diff(ends_of_events).max(initial=0):
            offsets[row], *ends = kernels.kept_objects(ends_of_events, widths[name])
            truncated[name] = int(ends_of_events[-1] - offsets[row, -1])
            if name in orders:
                orders[name] = copied(orders[name], *ends)
            else:
                ranges[name] = ends[0], ends[1]
    sizes = [events.num_events] * len(layout.flat)
    sizes += offsets[layout.collection_rows, -1].tolist()
    starts = np.zeros(len(sizes), dtype=np.int64)
    np.cumsum(sizes[:-1], out=starts[1:])
    values = np.empty(sum(sizes), dtype=np.float32)
    not_finite: dict[str, int] = {}
    out_of_range: dict[str, int] = {}
    for branch, scaling, start, size in zip(
        encoding.branches, encoding.scalings, starts.tolist(), sizes, strict=True
    ):
        content = events.contents[branch.name]
        order = None if branch.collection is None else orders.get(branch.collection)
        ends = None if branch.collection is None else ranges.get(branch.collection)
        out = values[start : start + size]
        # What is cut off is counted with the rest, so that specs foretell the counts.
        is_direct = order is None and ends is None
        target = out if is_direct else np.empty(content.size, dtype=np.float32)
        num_missing, num_outside = normalise_into(content, scaling, target)
        if order is not None:
            np.take(target, order, out=out, mode="clip")
        elif ends is not None:
            copied(target, *ends, out)
        if num_missing:
            not_finite[branch.name] = num_missing
        if num_outside:
            out_of_range[branch.name] = num_outside
    counts = EncodeCounts(not_finite, out_of_range, truncated)
    return Encoded(events.num_events, layout, values, starts, offsets, counts)


def _require_branches(events: Events, encoding: Encoding) -> None:
    available = {branch.name: branch for branch in events.branches}
    for branch in encoding.reads:
        there = available.get(branch.name)
        if there is None or there.collection != branch.collection:
            what = "absent" if there is None else f"in collection {there.collection!r}"
            raise EncodeError(
                f"branch {branch.name!r} is {what}; expected {branch.kind} in collection "
                f"{branch.collection!r}",
                branch=branch.name,
            )
