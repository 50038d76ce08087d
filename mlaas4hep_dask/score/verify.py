"""Verifies that a loaded model does what its bundle says, before anybody is given a score."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from mlaas4hep_dask.bundle.golden import Golden
from mlaas4hep_dask.errors import BundleError, ModelError, PayloadError
from mlaas4hep_dask.export.contract import compared, scores_of

if TYPE_CHECKING:
    from mlaas4hep_dask.score.scorer import Scorer


def verify(model: Scorer, golden: Golden | None, *, gives_rows: bool = False) -> None:
    """Raise a BundleError unless a model keeps to its bundle.

    The normalisation inside the network has to be that of the specs; the scores one per event, in
    range, repeatable and the same in any batch; and those of golden events what they were when
    the model was trained, from the raw event on.

    Parameters
    ----------
    model : Model
        The loaded model.
    golden : Golden or None
        Of its bundle; None for a bundle of an earlier version.
    gives_rows : bool
        It is asked for rows, whatever its manifest says of scores.

    Raises
    ------
    BundleError
        When it does not, with numbers.
    """
    wrong = model.network.contradiction(model.encoding, model.outputs)
    if wrong is None and golden is not None and golden.output != model.outputs.as_json():
        wrong = f"golden events have scores of {golden.output}, the manifest of {model.outputs}"
    if wrong is not None:
        raise BundleError(f"model {model.name!r} contradicts itself: {wrong}")
    # The manifest of the first bundles does not say how many numbers there are.
    if not gives_rows and "kind" in (model.bundle.manifest.get("output") or {"kind": ""}):
        _require_contract(model, golden)
    if golden is not None:
        _require_scores(model, golden)


def _require_contract(model: Scorer, golden: Golden | None) -> None:
    x, missing = map(torch.from_numpy, _rows(model, golden))

    def call(rows: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(model.network.scores_of(rows.numpy(), mask.numpy()))

    try:
        scores_of(call, x, missing, model.outputs, is_finite=golden is not None)
    except ModelError as error:
        raise BundleError(f"model {model.name!r} {error.message}") from error


def _rows(model: Scorer, golden: Golden | None) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Rows of golden events, else some made of the example."""
    if golden is not None:
        return _golden_rows(model, golden)
    x, missing = model.rows([model.example()])
    factors = np.linspace(0, 1, 5, dtype=np.float32).reshape(-1, *[1] * (x.ndim - 1))
    return x * factors, np.repeat(missing, len(factors), axis=0)


def _golden_rows(model: Scorer, golden: Golden) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    try:
        return model.rows(golden.events)
    except PayloadError as error:
        raise BundleError(f"model {model.name!r} does not take a golden event: {error}") from error


def _require_scores(model: Scorer, golden: Golden) -> None:
    x, missing = _golden_rows(model, golden)
    found = model.network.scores_of(x, missing)
    if found.shape != golden.scores.shape:
        raise BundleError(
            f"model {model.name!r} gives scores of shape {found.shape} for golden events, of which "
            f"the bundle has {golden.scores.shape}"
        )
    given, expected, rows = map(torch.from_numpy, (found, golden.scores, x))
    apart = compared(given, expected, rows, model.outputs, absolute=golden.tolerance)
    if apart:
        raise BundleError(
            f"model {model.name!r} gives golden events other scores than the trained network did, "
            f"{apart} (rounding may change a probability by {golden.tolerance:g}): what of the "
            "bundle was changed, or which library?"
        )
