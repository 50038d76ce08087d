"""What rows and images have in common while they are packed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Packed(ABC):
    """Encoded events in packed form; `dense` and `missing` are made where they are used."""

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
            Row of ``out`` for each of ``rows``, for shuffling; by default 0, 1, 2, ….
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
        return self._write(np.float32, rows, positions, out)

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
        return self._write(np.bool_, rows, positions, out)

    @abstractmethod
    def _write(
        self,
        dtype: type,
        rows: NDArray[np.int64] | None,
        positions: NDArray[np.int64] | None,
        out: NDArray[Any] | None,
    ) -> NDArray[Any]:
        """As `dense` for float32, as `missing` for bool."""
