"""A bundle's TorchScript: encoded events in, scores out; for the server and for whole files."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray


class Rows(Protocol):
    """Encoded events, whatever their form."""

    def __len__(self) -> int: ...

    def dense(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Encoded rows of some events."""

    def missing(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Their missing mask."""


class Network:
    """A loaded TorchScript module.

    Parameters
    ----------
    source : Path or bytes
        The file ``model.pt`` of a bundle, or its content.

    Raises
    ------
    RuntimeError
        When torch cannot load it.
    """

    def __init__(self, source: Path | bytes) -> None:
        with warnings.catch_warnings():
            # torch.jit is deprecated in favour of torch.export; bundles are TorchScript.
            warnings.simplefilter("ignore", DeprecationWarning)
            readable = io.BytesIO(source) if isinstance(source, bytes) else source
            self._script: Any = torch.jit.load(readable).eval()  # type: ignore[no-untyped-call]

    def scores(self, encoded: Rows) -> NDArray[np.float32]:
        """Scores, shape (events,) or (events, outputs), of all encoded events."""
        rows = np.arange(len(encoded))
        return self.scores_of(encoded.dense(rows), encoded.missing(rows))

    def scores_of(self, x: NDArray[np.float32], missing: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Scores, shape (events,) or (events, outputs), of rows and their missing mask."""
        with torch.inference_mode():
            scores = self._script.score_encoded(torch.from_numpy(x), torch.from_numpy(missing))
        return np.asarray(scores.numpy(), dtype=np.float32)

    def rows_of(self, x: NDArray[np.float32], missing: NDArray[np.bool_]) -> NDArray[np.float32]:
        """What an autoencoder makes of rows, of the same shape."""
        with torch.inference_mode():
            rows = self._script.reconstruct_encoded(torch.from_numpy(x), torch.from_numpy(missing))
        return np.asarray(rows.numpy(), dtype=np.float32)
