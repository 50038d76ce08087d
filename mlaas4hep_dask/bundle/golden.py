"""Golden events: raw events with the scores of the trained network, kept in a bundle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlaas4hep_dask.bundle.members import read_member, strict_json
from mlaas4hep_dask.errors import BundleError

GOLDEN = "golden.json"
FORMAT = "mlaas4hep_dask/golden"
VERSION = 1
TOLERANCE = 1e-4  # of a probability: other processors and libraries round otherwise
MAX_TOLERANCE = 1e-3  # with more, other weights would pass for the trained ones
MAX_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Golden:
    """Raw events and their scores.

    Parameters
    ----------
    events : tuple of mapping
        JSON objects, as a client sends them.
    scores : ndarray of float32, shape (events,) or (events, outputs)
        Those that the trained network gives, outside TorchScript.
    output : mapping
        What the scores mean, as in the manifest.
    tolerance : float
        By how much a probability may differ; see `mlaas4hep_dask.export.contract.compared`.
    """

    events: tuple[Mapping[str, Any], ...]
    scores: NDArray[np.float32]
    output: Mapping[str, Any]
    tolerance: float = TOLERANCE

    def to_json(self) -> bytes:
        """The content of ``golden.json``: one event or score per line."""
        facts = {
            "format": FORMAT,
            "version": VERSION,
            "tolerance": self.tolerance,
            "output": dict(self.output),
        }
        parts = [f' "{key}": {json.dumps(value)}' for key, value in facts.items()]
        scores = self.scores.astype(np.float64).tolist()
        for key, values in (("events", self.events), ("scores", scores)):
            lines = ",\n  ".join(json.dumps(value, allow_nan=False) for value in values)
            parts.append(f' "{key}": [\n  {lines}\n ]')
        return ("{\n" + ",\n".join(parts) + "\n}\n").encode()

    @classmethod
    def read(cls, folder: Path) -> Golden:
        """The golden events in the folder of a bundle.

        Raises
        ------
        BundleError
            When there are none.
        """
        try:
            return cls._of(strict_json(read_member(folder, GOLDEN, most=MAX_BYTES)))
        except (ValueError, TypeError, KeyError, OverflowError) as error:
            reason = f"no {error}" if isinstance(error, KeyError) else error
            raise BundleError.at(
                folder, f"{GOLDEN} holds no golden events ({reason})", member=GOLDEN
            ) from error

    @classmethod
    def _of(cls, content: Any) -> Golden:
        if not isinstance(content, dict):
            raise TypeError("it is no object")
        if content["format"] != FORMAT or content["version"] != VERSION:
            raise ValueError(f"it is not {FORMAT!r} of version {VERSION}")
        events, tolerance = content["events"], content["tolerance"]
        if not isinstance(events, list) or not all(isinstance(each, dict) for each in events):
            raise TypeError("its events are no objects")
        scores = np.array(content["scores"], dtype=np.float32)
        if scores.ndim not in (1, 2) or len(scores) != len(events) or not len(events):
            raise ValueError(f"{len(events)} events, and scores of shape {scores.shape}")
        if not isinstance(tolerance, float) or not 0 < tolerance <= MAX_TOLERANCE:
            raise ValueError(f"its tolerance is {tolerance!r}, expected at most {MAX_TOLERANCE}")
        if not isinstance(content["output"], dict):
            raise TypeError("its output is no object")
        return cls(tuple(events), scores, content["output"], tolerance)
