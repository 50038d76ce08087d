"""Verifies that a loaded model does what its bundle says, before anybody is given a score."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from mlaas4hep_dask.bundle.golden import Golden
from mlaas4hep_dask.errors import BundleError, EventError, ModelError
from mlaas4hep_dask.export.contract import compared, scores_of
from mlaas4hep_dask.score.example import example_of
from mlaas4hep_dask.score.parts import Records
from mlaas4hep_dask.score.scorer import Scorer


def verify(scorer: Scorer, golden: Golden | None, *, gives_rows: bool = False) -> None:
    """Raise a BundleError unless a model keeps to its bundle.

    The normalisation inside the network has to be that of the specs; the scores one per event, in
    range, repeatable and the same in any batch; and those of golden events what they were when
    the model was trained, from the raw event on.

    Parameters
    ----------
    scorer : Scorer
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
    wrong = scorer.script.contradiction(scorer.encoding, scorer.objective)
    if wrong is None and golden is not None and golden.output != scorer.objective.as_json():
        output = scorer.objective.as_json()
        wrong = f"golden events have scores of {golden.output}, the manifest of {output}"
    if wrong is not None:
        raise BundleError(f"model {scorer.name!r} contradicts itself: {wrong}")
    # The manifest of the first bundles does not say how many numbers there are.
    if not gives_rows and "kind" in (scorer.bundle.manifest.get("output") or {"kind": ""}):
        _require_contract(scorer, golden)
    if golden is not None:
        _require_scores(scorer, golden)


def _require_contract(scorer: Scorer, golden: Golden | None) -> None:
    x, missing = map(torch.from_numpy, _rows(scorer, golden))

    def call(rows: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(scorer.script.scores_of(rows.numpy(), mask.numpy()))

    try:
        scores_of(call, x, missing, scorer.objective, is_finite=golden is not None)
    except ModelError as error:
        raise BundleError(f"model {scorer.name!r} {error.message}") from error


def _rows(scorer: Scorer, golden: Golden | None) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Rows of golden events, else some made of the example."""
    if golden is not None:
        return _golden_rows(scorer, golden)
    x, missing = scorer.rows(Records([example_of(scorer.bundle)]))
    factors = np.linspace(0, 1, 5, dtype=np.float32).reshape(-1, *[1] * (x.ndim - 1))
    return x * factors, np.repeat(missing, len(factors), axis=0)


def _golden_rows(scorer: Scorer, golden: Golden) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    try:
        return scorer.rows(Records(golden.events))
    except EventError as error:
        raise BundleError(f"model {scorer.name!r} does not take a golden event: {error}") from error


def _require_scores(scorer: Scorer, golden: Golden) -> None:
    x, missing = _golden_rows(scorer, golden)
    scores = scorer.script.scores_of(x, missing)
    if scores.shape != golden.scores.shape:
        raise BundleError(
            f"model {scorer.name!r} gives scores of shape {scores.shape} for golden events, of "
            f"which the bundle has {golden.scores.shape}"
        )
    actual, expected, rows = map(torch.from_numpy, (scores, golden.scores, x))
    apart = compared(actual, expected, rows, scorer.objective, absolute=golden.tolerance)
    if apart:
        raise BundleError(
            f"model {scorer.name!r} gives golden events other scores than the trained network did, "
            f"{apart} (rounding may change a probability by {golden.tolerance:g}): what of the "
            "bundle was changed, or which library?"
        )
