"""How far apart whole numbers have to be for rows of single precision to tell them apart."""

from __future__ import annotations

import numpy as np

from mlaas4hep_dask.encode.encoding import Encoding
from mlaas4hep_dask.encode.scaling import Scaling
from mlaas4hep_dask.errors import EncodeError, listed

PLACES = 1025


def step_of(scaling: Scaling) -> float:
    """The largest distance of values between which there is no other row; in units of the branch.

    It is looked for all over the range in the specs, and not below that of float64, in which
    values are normalised.
    """
    rows = np.linspace(scaling.encoded_low, scaling.encoded_high, PLACES)
    if scaling.table is not None:  # whose pieces may be short
        rows = np.concatenate([rows, scaling.table.y])
    single = rows.astype(np.float32)
    inside = np.nextafter(single, np.float32(0))
    there, next_to = (scaling.restore(each.astype(np.float64)) for each in (single, inside))
    of_double = np.spacing(max(abs(scaling.low), abs(scaling.high)))
    return max(float(np.max(np.abs(there - next_to))), float(of_double))


def inexact_branches(encoding: Encoding) -> dict[str, float]:
    """By branch of whole numbers that rows do not hold exactly: the `step_of` their values."""
    return {
        branch.name: step
        for branch, scaling in zip(encoding.branches, encoding.scalings, strict=True)
        if np.dtype(branch.dtype).kind in "iu" and scaling.low < scaling.high
        if (step := step_of(scaling)) >= 1.0
    }


def require_exact(encoding: Encoding) -> None:
    """Raise an EncodeError unless whole numbers come back from rows as they were.

    A decoded identifier or word of flags would be of another event, or of other flags, and look
    like any other.
    """
    if steps := inexact_branches(encoding):
        descriptions = [f"{name} (steps of {step:.3g})" for name, step in sorted(steps.items())]
        raise EncodeError(
            "rows of single precision do not hold the whole numbers of "
            f"{listed(descriptions)}, which cannot be decoded; train without them, "
            "or on bits derived from them",
            branch=min(steps),
        )
