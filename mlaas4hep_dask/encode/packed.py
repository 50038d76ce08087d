"""What rows and images have in common while they are packed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Packed(ABC):
    """Encoded events in packed form; dense rows and their mask are made where they are used."""

    num_events: int

    @abstractmethod
    def __post_init__(self) -> None:
        """Compare the lengths of all arrays."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.__post_init__()

    def __len__(self) -> int:
        return self.num_events

    @abstractmethod
    def taken(self, rows: NDArray[np.int64]) -> Packed:
        """A copy of some events in the order of ``rows``, without counts; fastest when ascending.

        Parameters
        ----------
        rows : ndarray of int64, shape (rows,)
            Which, each below the number of events.
        """

    def dense(
        self,
        rows: NDArray[np.int64] | None = None,
        *,
        positions: NDArray[np.int64] | None = None,
        out: NDArray[np.float32] | None = None,
    ) -> NDArray[np.float32]:
        """Dense rows, or images, 0 where a value is missing or a cell is empty.

        Parameters
        ----------
        rows : ndarray of int64, optional
            Events to write, fastest when ascending; all by default.
        positions : ndarray of int64, optional
            Row of ``out`` for each of ``rows``, none of them twice, for shuffling; by default
            0, 1, 2, ….
        out : ndarray of float32, shape (at least max(positions) + 1, …), optional
            Receives them; that of images is contiguous.

        Returns
        -------
        ndarray of float32, shape (rows, columns) or (rows, channels, ny, nx)
            ``out``, or a new array.

        Raises
        ------
        IndexError
            When there is no such event, or no such row of ``out``; of rows.
        ValueError
            When shapes do not match.
        """
        out = self._room(np.float32, rows) if out is None else out
        self._write(rows, positions, out, None)
        return out

    def missing(
        self,
        rows: NDArray[np.int64] | None = None,
        *,
        positions: NDArray[np.int64] | None = None,
        out: NDArray[np.bool_] | None = None,
    ) -> NDArray[np.bool_]:
        """Missing mask of the shape of `dense`: True for padding, NaN, and cells without an object.

        The parameters are those of `dense`.
        """
        out = self._room(np.bool_, rows) if out is None else out
        self._write(rows, positions, None, out)
        return out

    def inputs(
        self,
        rows: NDArray[np.int64] | None = None,
        *,
        positions: NDArray[np.int64] | None = None,
        out: tuple[NDArray[np.float32], NDArray[np.bool_]] | None = None,
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """`dense` and `missing` together, which takes less time than one after the other."""
        x, missing = out or (self._room(np.float32, rows), self._room(np.bool_, rows))
        self._write(rows, positions, x, missing)
        return x, missing

    def _room(self, dtype: type, rows: NDArray[np.int64] | None) -> NDArray[Any]:
        num_rows = self.num_events if rows is None else len(rows)
        return np.empty((num_rows, *self._row_shape), dtype)

    @property
    @abstractmethod
    def _row_shape(self) -> tuple[int, ...]:
        """Shape of one dense row or image."""

    @abstractmethod
    def _write(
        self,
        rows: NDArray[np.int64] | None,
        positions: NDArray[np.int64] | None,
        x: NDArray[np.float32] | None,
        missing: NDArray[np.bool_] | None,
    ) -> None:
        """Write what `dense` gives to ``x``, and what `missing` gives to ``missing``, if there."""
