"""Where a number stands among the bytes that a TBranch has for an entry."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import uproot
from numpy.typing import NDArray

SIZES = (1, 2, 4, 8)  # bytes of a number
HEAD = 10  # bytes before a list that counts itself: of what follows, a version, the multiplicity


class Cell(NamedTuple):
    """A number within the baskets of a TBranch.

    Parameters
    ----------
    holder : str
        Key of the TBranch if it holds several numbers, which are several branches here.
    head : int
        Bytes before the objects of each entry, by which lists count themselves; `HEAD` or 0.
    stride : int
        Bytes from one entry or object to the next; 0 when there is nothing beside the number.
    offset : int
        Bytes before the number in each of them.
    """

    holder: str = ""
    head: int = 0
    stride: int = 0
    offset: int = 0


PLAIN = Cell()


def cell_of(
    interpretation: Any, key: str = "", steps: Sequence[str | int] = ()
) -> tuple[Cell, np.dtype[Any]] | None:
    """The cell at the end of the steps, and its number's dtype; None for what uproot reads.

    Parameters
    ----------
    interpretation : uproot.interpretation.Interpretation
        What the bytes of the TBranch mean.
    key : str
        Of the TBranch.
    steps : sequence of str or int
        The names of leaves and the numbers of elements on the way to it.
    """
    head = 0
    if isinstance(interpretation, uproot.AsJagged):
        head, interpretation = interpretation.header_bytes, interpretation.content
    if type(interpretation) is not uproot.AsDtype or head not in (0, HEAD):
        return None
    if not _has_same_values(interpretation):
        return None
    inner, offset = interpretation.from_dtype, 0
    remaining = list(steps)
    while remaining and isinstance(remaining[0], str) and inner.fields is not None:
        inner, more = inner.fields[remaining.pop(0)][:2]
        offset += more
    if len(remaining) != len(inner.shape):
        return None
    if remaining:
        element = int(np.ravel_multi_index([int(n) for n in remaining], inner.shape))
        offset += element * inner.base.itemsize
    number = inner.base
    if number.kind not in "biuf" or number.itemsize not in SIZES:
        return None
    if not steps:
        return Cell(head=head), number
    return Cell(key, head, interpretation.from_dtype.itemsize, offset), number


def _has_same_values(interpretation: Any) -> bool:
    """True when the numbers stay as they are, or float32 become float64."""
    disk_type, memory_type = interpretation.from_dtype, interpretation.to_dtype
    if disk_type.newbyteorder("=") == memory_type.newbyteorder("="):
        return True
    return bool(
        disk_type.shape == memory_type.shape
        and disk_type.base.kind == "f"
        and disk_type.base.itemsize == 4
    ) and memory_type.base == np.dtype("float64")


@cache  # NumPy makes the name of a dtype anew each time
def is_kept_as(disk_type: np.dtype[Any], dtype: str) -> bool:
    """True when a branch of this dtype may be kept in a file as ``disk_type``."""
    name = disk_type.newbyteorder("=").name
    return name == dtype or (name, dtype) == ("float32", "float64")  # Double32_t


def truths(values: NDArray[Any]) -> NDArray[Any]:
    """The values; those of booleans as 0 or 1, of which files hold any byte that was in memory."""
    return values.view(np.uint8) != 0 if values.dtype.kind == "b" else values
