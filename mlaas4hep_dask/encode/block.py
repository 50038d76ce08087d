"""Block: one partition, encoded, with labels, weights and event ids."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlaas4hep_dask.encode.encoded import Encoded
from mlaas4hep_dask.encode.encoded_images import EncodedImages
from mlaas4hep_dask.events.lengths import require_length


@dataclass(frozen=True)
class Block:
    """Encoded events of one partition with all that training needs.

    Parameters
    ----------
    encoded : Encoded or EncodedImages
        Inputs in packed form; ``encoded.dense()`` gives x and ``encoded.missing()`` the mask.
    y : ndarray of float32, shape (events,) or (events, targets)
        Labels, or the targets of a regression; of a reconstruction the number of the sample.
    w : ndarray of float32, shape (events,)
        Event weights.
    id : ndarray of uint64, shape (events, 2)
        Stable event ids: the file's id, derived from its UUID, and the entry in the tree.
    split : ndarray of uint8, shape (events,)
        0 for training, 1 for validation, 2 for test.

    Raises
    ------
    DataError
        When one of them is of other events than the others; also on arrival from elsewhere.
    """

    encoded: Encoded | EncodedImages
    y: NDArray[np.float32]
    w: NDArray[np.float32]
    id: NDArray[np.uint64]
    split: NDArray[np.uint8]

    def __post_init__(self) -> None:
        arrays: dict[str, NDArray[Any]] = {"labels": self.y, "weights": self.w}
        arrays |= {"ids": self.id, "split": self.split}
        for what, array in arrays.items():
            require_length(f"{what} of a block", array, len(self.encoded))

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.__post_init__()

    def of_split(self, split: int) -> Block:
        """A copy of the events of one split, in their order."""
        rows = self.split == split
        encoded = self.encoded.chosen(rows)
        return Block(encoded, self.y[rows], self.w[rows], self.id[rows], self.split[rows])

    def __len__(self) -> int:
        return len(self.encoded)

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        arrays = (self.y, self.w, self.id, self.split)
        return self.encoded.nbytes + sum(array.nbytes for array in arrays)

    def __sizeof__(self) -> int:
        # Dask asks, to know how much a worker holds, when to spill and how much to send at once.
        return object.__sizeof__(self) + self.nbytes
