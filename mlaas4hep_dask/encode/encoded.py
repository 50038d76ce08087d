"""Encode: normalised events in packed form, and the dense rows they stand for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlaas4hep_dask.encode import kernels
from mlaas4hep_dask.encode.counts import EncodeCounts
from mlaas4hep_dask.encode.encoding import Encoding
from mlaas4hep_dask.encode.layout import Layout
from mlaas4hep_dask.errors import EncodeError
from mlaas4hep_dask.specs import Events


@dataclass(frozen=True)
class Encoded:
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
        Where each event's objects begin within a branch's contents.
    counts : EncodeCounts
        What became missing, lay outside the specs or is cut off in the dense rows.
    """

    num_events: int
    layout: Layout
    values: NDArray[np.float32]
    starts: NDArray[np.int64]
    offsets: NDArray[np.int64]
    counts: EncodeCounts = field(default_factory=EncodeCounts)

    def __len__(self) -> int:
        return self.num_events

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self.values.nbytes + self.starts.nbytes + self.offsets.nbytes

    def multiplicities(self) -> NDArray[np.int64]:
        """Number of objects kept, shape (collections, events): at most the collection's width."""
        widths = np.zeros(len(self.layout.collections), dtype=np.int64)
        widths[self.layout.collection_rows] = self.layout.widths
        return np.minimum(np.diff(self.offsets, axis=1), widths[:, None])

    def dense(
        self,
        rows: NDArray[np.int64] | None = None,
        *,
        positions: NDArray[np.int64] | None = None,
        out: NDArray[np.float32] | None = None,
    ) -> NDArray[np.float32]:
        """Dense rows, 0 where a value is missing.

        Parameters
        ----------
        rows : ndarray of int64, optional
            Events to write, fastest when ascending; all by default.
        positions : ndarray of int64, optional
            Row of ``out`` for each of ``rows``, for shuffling; by default 0, 1, 2, ….
        out : ndarray of float32, shape (at least max(positions) + 1, columns), optional
            Receives the rows.

        Returns
        -------
        ndarray of float32, shape (rows, columns)
            ``out``, or a new array.
        """
        return self._write(kernels.scatter, np.float32, rows, positions, out)

    def missing(
        self,
        rows: NDArray[np.int64] | None = None,
        *,
        positions: NDArray[np.int64] | None = None,
        out: NDArray[np.bool_] | None = None,
    ) -> NDArray[np.bool_]:
        """Missing mask, shape (rows, columns): True where the value is padding or NaN.

        The parameters are those of `dense`.
        """
        return self._write(kernels.scatter_missing, np.bool_, rows, positions, out)

    def _write(
        self,
        kernel: Any,
        dtype: type,
        rows: NDArray[np.int64] | None,
        positions: NDArray[np.int64] | None,
        out: NDArray[Any] | None,
    ) -> NDArray[Any]:
        rows = np.arange(self.num_events) if rows is None else rows
        positions = np.arange(rows.size) if positions is None else positions
        layout = self.layout
        if out is None:
            out = np.empty((rows.size, layout.num_columns), dtype)
        kernel(
            self.values,
            self.starts,
            self.offsets,
            len(layout.flat),
            layout.collection_rows,
            layout.first_columns,
            layout.widths,
            rows,
            positions,
            out,
        )
        return out


def encode(events: Events, encoding: Encoding) -> Encoded:
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
        When a branch of the encoding is not among the events, or of another kind.
    """
    layout = encoding.layout
    available = {branch.name: branch for branch in events.branches}
    for branch in encoding.branches:
        found = available.get(branch.name)
        if found is None or found.collection != branch.collection:
            what = "absent" if found is None else f"in collection {found.collection!r}"
            raise EncodeError(
                f"branch {branch.name!r} is {what}; expected {branch.kind} in collection "
                f"{branch.collection!r}",
                branch=branch.name,
            )
    contents = [events.contents[name] for name in layout.branches]
    ends = np.cumsum([content.size for content in contents], dtype=np.int64)
    values = np.empty(int(ends[-1]) if len(ends) else 0, dtype=np.float32)
    not_finite: dict[str, int] = {}
    out_of_range: dict[str, int] = {}
    for name, content, scaling, end in zip(
        layout.branches, contents, encoding.scalings, ends.tolist(), strict=True
    ):
        num_missing, num_outside = kernels.normalise(
            content,
            scaling.shift,
            scaling.scale,
            scaling.low,
            scaling.high,
            encoding.clip,
            values[end - content.size : end],
        )
        if num_missing:
            not_finite[name] = num_missing
        if num_outside:
            out_of_range[name] = num_outside
    offsets = np.empty((len(layout.collections), events.num_events + 1), dtype=np.int64)
    for row, collection in enumerate(layout.collections):
        offsets[row] = events.offsets[collection]
    starts = ends - np.array([content.size for content in contents], dtype=np.int64)
    encoded = Encoded(events.num_events, layout, values, starts, offsets)
    truncated = (offsets[:, -1] - encoded.multiplicities().sum(axis=1)).tolist()
    counts = EncodeCounts(
        not_finite,
        out_of_range,
        {name: n for name, n in zip(layout.collections, truncated, strict=True) if n},
    )
    object.__setattr__(encoded, "counts", counts)
    return encoded
