"""The arithmetic of a regression."""

# No `from __future__ import annotations`: torch.jit reads the annotations of buffers as types.
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mlaas4hep_dask.objective.arithmetic.activation import Activation
from mlaas4hep_dask.objective.arithmetic.curves import NUM_BINS, bin_of, residual_histogram


class Unscale(Activation):
    """Scaled numbers to those in units of the targets."""

    def forward(self, logits: torch.Tensor, x: torch.Tensor, missing: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        """As `Activation`."""
        scaled = logits.reshape(-1, self.num_outputs).double()
        scores = (scaled / self.scale + self.shift).float()
        return scores.reshape(-1) if self.num_outputs == 1 else scores


class RegressionTally:
    """Root mean square, mean absolute and mean error, and R², in units of the targets.

    Parameters
    ----------
    names, shifts, scales : tuple
        Of the targets, as those of `Regression`.
    """

    _MOMENTS = 6  # sums of w, wz, wz², wr, wr², w|r| with z the scaled target, r the residual

    def __init__(
        self, names: tuple[str, ...], shifts: tuple[float, ...], scales: tuple[float, ...]
    ) -> None:
        self._names, self._shifts, self._scales = names, shifts, scales
        self.sums = np.zeros(len(names) * (self._MOMENTS + NUM_BINS))

    def _parts(self) -> NDArray[np.float64]:
        return self.sums.reshape(len(self._names), -1)

    def add(self, output: NDArray[np.float32], y: NDArray[Any], w: NDArray[Any]) -> None:
        """Add events with scaled outputs and targets, both of shape (events, targets)."""
        weights = w.astype(np.float64)
        for number, part in enumerate(self._parts()):
            shift, scale = self._shifts[number], self._scales[number]
            z = (y[:, number].astype(np.float64) - shift) * scale
            r = output[:, number].astype(np.float64) - z
            terms = (np.ones_like(z), z, z * z, r, r * r, np.abs(r))
            part[: self._MOMENTS] += [float((weights * term).sum()) for term in terms]
            bins = bin_of(r.astype(np.float32))
            part[self._MOMENTS :] += np.bincount(bins, weights=weights, minlength=NUM_BINS)

    def values(self) -> dict[str, Any]:
        """R² averaged over the targets, and all metrics of each target."""
        targets = {
            name: self._metrics(part[: self._MOMENTS], scale)
            for name, part, scale in zip(self._names, self._parts(), self._scales, strict=True)
        }
        shares = [share for m in targets.values() if (share := m["r2"]) is not None]
        whole = len(shares) == len(targets)
        return {"r2": sum(shares) / len(shares) if whole else None, "targets": targets}

    def _metrics(self, moments: NDArray[np.float64], scale: float) -> Mapping[str, float | None]:
        total = float(moments[0])
        if total <= 0:
            return dict.fromkeys(("rmse", "mae", "bias", "r2"))
        _, mean, square, bias, error, absolute = (moments / total).tolist()
        variance = square - mean * mean
        return {
            "rmse": max(error, 0.0) ** 0.5 / scale,
            "mae": absolute / scale,
            "bias": bias / scale,
            "r2": 1 - error / variance if variance > 1e-12 else None,
        }

    def detail(self) -> dict[str, Any]:
        """Histogram of the residuals of each target."""
        parts = zip(self._names, self._parts(), self._scales, strict=True)
        residuals = {
            name: residual_histogram(part[self._MOMENTS :], 1 / scale)
            for name, part, scale in parts
        }
        return {"residuals": residuals}
