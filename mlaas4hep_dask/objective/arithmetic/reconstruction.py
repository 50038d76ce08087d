"""The arithmetic of a reconstruction: errors of events by sample, residuals by branch."""

# No `from __future__ import annotations`: torch.jit reads the annotations of buffers as types.
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from mlaas4hep_dask.objective.arithmetic.activation import Activation
from mlaas4hep_dask.objective.arithmetic.curves import bin_edges, bin_of, residual_histogram

SLICE = 4096  # rows that are looked at together; their float64 copies are all the memory it takes
SAMPLE_BINS = 1 << 14  # of the errors of events, each 1/32 of its value wide
BRANCH_BINS = 1 << 13  # of the residuals
SHOWN_BINS = 60  # of the histogram in the report
QUANTILES = {"median": 0.5, "quantile_95": 0.95}


def reconstruction_error(
    rows: torch.Tensor, x: torch.Tensor, missing: torch.Tensor
) -> torch.Tensor:
    """Mean over an event's present values of the squared difference, float32 (events,).

    0 for an event of which every value is missing.

    Parameters
    ----------
    rows, x : Tensor of float32, shape (events, columns)
        What the network gives, and its input.
    missing : Tensor of bool, shape (events, columns)
        Missing mask.
    """
    differences = (rows - x).masked_fill(missing, 0.0)
    num_present = torch.logical_not(missing).sum(dim=1)
    return (differences * differences).sum(dim=1) / num_present.clamp(min=1)


class Distance(Activation):
    """Rows to their mean squared difference from the input."""

    def forward(self, logits: torch.Tensor, x: torch.Tensor, missing: torch.Tensor) -> torch.Tensor:
        """As `Activation`."""
        return reconstruction_error(logits.reshape(x.shape), x, missing)


class Rows(NamedTuple):
    """What reconstructed rows are compared with.

    Parameters
    ----------
    x : ndarray of float32, shape (events, columns)
        Encoded rows.
    missing : ndarray of bool, shape (events, columns)
        Missing mask.
    sample : ndarray of float32, shape (events,)
        Number of the sample.
    """

    x: NDArray[np.float32]
    missing: NDArray[np.bool_]
    sample: NDArray[np.float32]


class ReconstructionTally:
    """Error of each event by sample; residuals of each branch; all in encoded units.

    Parameters
    ----------
    columns : sequence of str
        Names of the columns.
    samples : sequence of str
        The samples by number.
    """

    _MOMENTS = 5  # sums of w, wx, wx², wr, wr² over present values, with r the residual

    def __init__(self, columns: Sequence[str], samples: Sequence[str]) -> None:
        names = [re.sub(r"\[\d+\]$", "", column) for column in columns]
        self._branches = list(dict.fromkeys(names))
        places = {name: place for place, name in enumerate(self._branches)}
        self._branch_of = np.array([places[name] for name in names])
        self._samples = list(samples)
        # By sample the sums of w and w times error, and a histogram; then by branch.
        self._split = len(self._samples) * (2 + SAMPLE_BINS)
        self.sums = np.zeros(self._split + len(places) * (self._MOMENTS + BRANCH_BINS))

    def _of_samples(self) -> NDArray[np.float64]:
        return self.sums[: self._split].reshape(len(self._samples), 2 + SAMPLE_BINS)

    def _of_branches(self) -> NDArray[np.float64]:
        return self.sums[self._split :].reshape(len(self._branches), -1)

    def add(self, output: NDArray[np.float32], y: Rows, w: NDArray[Any]) -> None:
        """Add events: reconstructed rows, float32 (events, columns), and what they should be."""
        for start in range(0, len(w), SLICE):
            part = slice(start, start + SLICE)
            rows = Rows(y.x[part], y.missing[part], y.sample[part])
            self._add(output[part], rows, w[part].astype(np.float64))

    def _add(self, output: NDArray[np.float32], y: Rows, w: NDArray[np.float64]) -> None:
        present = ~y.missing
        x = np.where(present, y.x, 0).astype(np.float64)
        r = np.where(present, output, 0) - x  # (events, columns)
        errors = (r * r).sum(axis=1) / present.sum(axis=1).clip(1)
        for number, sums in enumerate(self._of_samples()):
            is_of_sample = y.sample == number
            sums[:2] += w[is_of_sample].sum(), w[is_of_sample] @ errors[is_of_sample]
            bins = bin_of(errors[is_of_sample].astype(np.float32), SAMPLE_BINS)
            sums[2:] += np.bincount(bins, weights=w[is_of_sample], minlength=SAMPLE_BINS)
        size = len(self._branches)
        branches = self._of_branches()
        for place, term in enumerate((present.astype(np.float64), x, x * x, r, r * r)):
            by_column = w @ term
            branches[:, place] += np.bincount(self._branch_of, weights=by_column, minlength=size)
        events, columns = np.nonzero(present)
        cells = bin_of(r[present].astype(np.float32), BRANCH_BINS)
        cells += self._branch_of[columns] * BRANCH_BINS
        contents = np.bincount(cells, weights=w[events], minlength=size * BRANCH_BINS)
        branches[:, self._MOMENTS :] += contents.reshape(size, BRANCH_BINS)

    def values(self) -> dict[str, Any]:
        """R² averaged over the branches that vary, and the metrics of samples and branches."""
        branches = {
            name: _residuals(part[: self._MOMENTS])
            for name, part in zip(self._branches, self._of_branches(), strict=True)
        }
        shares = [share for m in branches.values() if (share := m["r2"]) is not None]
        errors = {
            name: _errors(part)
            for name, part in zip(self._samples, self._of_samples(), strict=True)
        }
        r2 = sum(shares) / len(shares) if shares else None
        return {"r2": r2, "errors": errors, "branches": branches}

    def detail(self) -> dict[str, Any]:
        """Histograms: of the errors' logarithm by sample, and of the residuals by branch."""
        residuals = {
            name: residual_histogram(part[self._MOMENTS :], 1.0)
            for name, part in zip(self._branches, self._of_branches(), strict=True)
        }
        return {"residuals": residuals, "error_distribution": self._distribution()}

    def _distribution(self) -> dict[str, Any]:
        """Histograms of log10 of the errors, in the same equal bins for all samples.

        Errors of 0, which have no logarithm, stand in the first bin.
        """
        parts = self._of_samples()[:, 2:]
        filled = np.flatnonzero(parts.any(axis=0))
        zero = int(bin_of(np.zeros(1, np.float32), SAMPLE_BINS)[0])
        lows = bin_edges(filled[filled > zero], SAMPLE_BINS)
        if not lows.size or not np.isfinite(bin_edges(filled + 1, SAMPLE_BINS)).all():
            return {"edges": [], "counts": {}}
        highs = bin_edges(filled[filled > zero] + 1, SAMPLE_BINS)
        centres = np.log10((lows + highs) / 2)
        bounds = np.linspace(np.log10(lows[0]), np.log10(highs[-1]), SHOWN_BINS + 1)
        places = np.full(len(filled), bounds[0])
        places[filled > zero] = centres
        contents = {
            name: np.histogram(places, bounds, weights=part[filled])[0].tolist()
            for name, part in zip(self._samples, parts, strict=True)
        }
        return {"edges": bounds.tolist(), "counts": contents}


def _errors(part: NDArray[np.float64]) -> dict[str, float | None]:
    """Mean and quantiles of the errors of one sample."""
    total, histogram = float(part[0]), part[2:]
    if total <= 0:
        return dict.fromkeys(("mean", *QUANTILES))
    running = np.maximum.accumulate(np.cumsum(histogram))  # negative weights may make it fall
    quantiles = {}
    for name, quantile in QUANTILES.items():
        place = int(np.searchsorted(running, quantile * running[-1]))
        low, high = bin_edges(np.array([place, place + 1]), SAMPLE_BINS).tolist()
        below = float(running[place - 1]) if place else 0.0
        share = (quantile * float(running[-1]) - below) / (float(running[place]) - below)
        quantiles[name] = low + share * (high - low)
    return {"mean": float(part[1]) / total, **quantiles}


def _residuals(moments: NDArray[np.float64]) -> dict[str, float | None]:
    """Root mean square and mean residual of a branch, and the share of its variance explained."""
    total = float(moments[0])
    if total <= 0:
        return dict.fromkeys(("rmse", "bias", "r2"))
    mean, square, bias, error = (moments[1:] / total).tolist()
    variance = square - mean * mean
    return {
        "rmse": max(error, 0.0) ** 0.5,
        "bias": bias,
        "r2": 1 - error / variance if variance > 1e-12 else None,
    }
