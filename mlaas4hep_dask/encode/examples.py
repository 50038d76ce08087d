"""Examples: some real events, encoded, and as a client of a server would send them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Examples:
    """Some real events, on which a network is tried and its scores are compared.

    Parameters
    ----------
    x : ndarray of float32, shape (events, columns) or (events, channels, ny, nx)
        Inputs, 0 where missing.
    missing : ndarray of bool, of the same shape
        Missing mask.
    y : ndarray of float32, shape (events,) or (events, targets)
        Labels or targets, as in `Block`.
    w : ndarray of float32, shape (events,)
        Weights.
    raw : ndarray of float64, shape (events, columns), or None
        The values before normalisation, NaN where missing; None of images.
    sent : tuple of mapping
        Some of them, perhaps, as JSON objects: the branches that a server needs, before derived
        branches and object cuts.
    """

    x: NDArray[np.float32]
    missing: NDArray[np.bool_]
    y: NDArray[np.float32]
    w: NDArray[np.float32]
    raw: NDArray[np.float64] | None = None
    sent: tuple[Mapping[str, Any], ...] = ()

    def __len__(self) -> int:
        return len(self.x)


def joined(parts: Sequence[Examples]) -> Examples:
    """All examples of some parts."""
    arrays = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in ("x", "missing", "y", "w")
    }
    of_rows = [part.raw for part in parts if part.raw is not None]
    raw = np.concatenate(of_rows) if len(of_rows) == len(parts) else None
    return Examples(**arrays, raw=raw, sent=tuple(event for part in parts for event in part.sent))
