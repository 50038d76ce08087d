"""A bundle's TorchScript: encoded events in, scores out."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from mlaas4hep_dask.encode.encoding import Encoding
from mlaas4hep_dask.errors import BundleError
from mlaas4hep_dask.export.scorer import contradiction
from mlaas4hep_dask.objective import Objective


class Rows(Protocol):
    """Encoded events, whatever their form."""

    def __len__(self) -> int: ...

    def inputs(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Encoded rows of some events, and their missing mask."""


class Script:
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
            for kind in (DeprecationWarning, FutureWarning):  # the latter from Python 3.14 on
                warnings.simplefilter("ignore", kind)
            readable = io.BytesIO(source) if isinstance(source, bytes) else source
            self._script: Any = torch.jit.load(readable).eval()  # type: ignore[no-untyped-call]

    def contradiction(self, encoding: Encoding, objective: Objective) -> str | None:
        """Where what is inside contradicts an encoding or an objective; None if nowhere."""
        return contradiction(self._script, encoding, objective)

    def scores(self, encoded: Rows) -> NDArray[np.float32]:
        """Scores, shape (events,) or (events, outputs), of all encoded events."""
        rows = np.arange(len(encoded))
        return self.scores_of(*encoded.inputs(rows))

    def scores_of(self, x: NDArray[np.float32], missing: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Scores, shape (events,) or (events, outputs), of rows and their missing mask.

        Raises
        ------
        BundleError
            When there are not as many scores as events.
        """
        with torch.inference_mode():
            scores = self._script.score_encoded(torch.from_numpy(x), torch.from_numpy(missing))
        return _of_events(scores.numpy(), len(x))

    def rows_of(self, x: NDArray[np.float32], missing: NDArray[np.bool_]) -> NDArray[np.float32]:
        """What an autoencoder makes of rows, of the same shape; raises as `scores_of`."""
        with torch.inference_mode():
            rows = self._script.reconstruct_encoded(torch.from_numpy(x), torch.from_numpy(missing))
        return _of_events(rows.numpy(), len(x))


def _of_events(scores: NDArray[Any], num_events: int) -> NDArray[np.float32]:
    if scores.ndim == 0 or len(scores) != num_events:
        raise BundleError(
            f"the model gives an array of shape {scores.shape} for {num_events} events; expected "
            f"({num_events},) or ({num_events}, outputs)"
        )
    return np.asarray(scores, dtype=np.float32)
