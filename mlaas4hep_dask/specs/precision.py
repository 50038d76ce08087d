"""Whole numbers that single or double precision does not hold."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from mlaas4hep_dask.errors import listed
from mlaas4hep_dask.specs.branch import BranchSpecs

SINGLE, DOUBLE = 24, 53  # bits of the whole numbers that float32 and float64 hold, all of them


def bits_beyond(entry: BranchSpecs) -> int | None:
    """`SINGLE` or `DOUBLE` if a branch of whole numbers has larger ones than these bits hold.

    Those of float64 count too if all drawn values are whole, as identifiers are. None for all
    other branches, and for a constant, which tells nothing.
    """
    if entry.min is None or entry.max is None or entry.is_constant:
        return None
    largest = max(abs(entry.min), abs(entry.max))
    if largest <= 2.0**SINGLE or not _is_whole(entry):
        return None
    return SINGLE if largest <= 2.0**DOUBLE else DOUBLE


def may_differ_unseen(entry: BranchSpecs) -> bool:
    """True for 64-bit integers that the specs, which hold 53 bits of each, take for a constant."""
    if entry.min is None or not entry.is_constant or abs(entry.min) <= 2.0**DOUBLE:
        return False
    return np.dtype(entry.branch.dtype).kind in "iu"


def precision_notes(entries: Iterable[BranchSpecs]) -> list[str]:
    """What to know of the inputs that `bits_beyond` and `may_differ_unseen` find."""
    by_bits: dict[int, list[str]] = {SINGLE: [], DOUBLE: []}
    hidden: list[str] = []
    for entry in entries:
        if (bits := bits_beyond(entry)) is not None:
            by_bits[bits].append(entry.branch.name)
        elif may_differ_unseen(entry):
            hidden.append(entry.branch.name)
    notes = []
    if every := sorted([*by_bits[SINGLE], *by_bits[DOUBLE]]):
        notes.append(
            f"whole numbers beyond 2^24, of which rows of single precision keep the first 24 bits: "
            f"{listed(every)}; of a word of flags derive the bits, such as (x & 4) != 0"
        )
    if hidden:
        notes.append(
            "whole numbers beyond 2^53 that are one value in 53 bits, which becomes 0 though the "
            f"file may have several: {listed(sorted(hidden))}; derive what tells them apart, such "
            "as (x & 65535)"
        )
    if by_bits[DOUBLE]:
        notes.append(
            "whole numbers beyond 2^53, of which min, max and mean in the specs are rounded to 53 "
            f"bits: {listed(sorted(by_bits[DOUBLE]))}"
        )
    return notes


def _is_whole(entry: BranchSpecs) -> bool:
    dtype = np.dtype(entry.branch.dtype)
    if dtype.kind in "iu":
        return True
    if dtype != np.float64:
        return False
    values = entry.drawn[np.isfinite(entry.drawn)]
    return bool(values.size) and bool(np.all(values == np.floor(values)))
