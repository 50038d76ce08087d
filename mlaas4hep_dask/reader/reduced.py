"""Numbers of reduced precision in leaves, ``x[3]/d[0,500,12]``, as their titles describe them.

uproot takes the first brackets of the title for the range, which may be those of an array.
"""

from __future__ import annotations

import math
import re
from typing import Any

import uproot

from mlaas4hep_dask.reader.truncated import BITS, Lists, Truncated

_TITLE = re.compile(r"[^\[/]*(?P<dims>(\[[^\]]*\])*)/[dDfF](?P<range>\[[^\]]*\])?")
_IN_COMMENT = re.compile(r"[^\[]*(\[[^,\]]*\][^\[]*)?(?P<range>\[[^,\]]*,[^\]]*\])")
_BITS = {"TLeafD32": 32, "TLeafF16": BITS}  # of numbers without a range


def reduced_precision(branch: Any) -> Any:
    """The interpretation of a TBranch of ``Double32_t`` or ``Float16_t``; None for others.

    Raises
    ------
    ValueError
        When the title of its leaf is not understood.
    """
    leaves = branch.member("fLeaves")
    if len(leaves) != 1 or leaves[0].classname not in _BITS:
        return None
    leaf = leaves[0]
    title = leaf.member("fTitle")
    match = _TITLE.fullmatch(branch.title) or _TITLE.fullmatch(title)
    if match is None:
        if "[" not in title or (leaf.member("fLeafCount") is not None and title.count("[") == 1):
            return None  # without a range uproot is right
        raise ValueError(f"the leaf {title!r} is not understood")
    dims = tuple(int(each) for each in re.findall(r"\[([0-9]+)\]", match["dims"]))
    low, high, bits = _range(match["range"])
    interpretation: Any
    if leaf.classname == "TLeafD32" and match["range"] is None:
        shape: Any = (">f4", dims) if dims else ">f4"
        wide: Any = ("float64", dims) if dims else "float64"
        interpretation = uproot.AsDtype(shape, wide)
    else:
        if match["range"] is None:
            bits = _BITS[leaf.classname]
        elif bits is None or not 2 <= bits <= 32:
            bits = 32
        if dims and leaf.member("fLeafCount") is not None:  # uproot takes each for one number
            dtype = "float64" if leaf.classname == "TLeafD32" else "float32"
            return Lists(Truncated(low, high, bits, dtype), dims)
        kind = uproot.AsDouble32 if leaf.classname == "TLeafD32" else uproot.AsFloat16
        interpretation = kind(low, high, bits, dims)
    return interpretation if leaf.member("fLeafCount") is None else uproot.AsJagged(interpretation)


def truncated_as(comment: str, dtype: str) -> Truncated | None:
    """How a member with this comment is kept, as ROOT finds it there; None for a plain float.

    Parameters
    ----------
    comment : str
        Such as ``[0,500,12] momentum``.
    dtype : str
        float64 for ``Double32_t``, float32 for ``Float16_t``.

    Raises
    ------
    ValueError
        When the range is not understood.
    """
    match = _IN_COMMENT.match(comment)
    low, high, bits = _range(match["range"] if match else None)
    if low < high:
        return Truncated(low, high, bits if bits and 2 <= bits <= 32 else 32, dtype)
    if bits and 2 <= bits < 15:
        return Truncated(0.0, 0.0, bits, dtype)
    return Truncated(0.0, 0.0, BITS, dtype) if dtype == "float32" else None


def _range(text: str | None) -> tuple[float, float, int | None]:
    """Lowest and highest number, and how many bits one takes, if that is told."""
    if text is None:
        return 0.0, 0.0, None
    low, high, *bits = text.strip("[]").split(",")
    return _number(low), _number(high), int(bits[0]) if bits else None


def _number(text: str) -> float:
    """A number, which may be written as a part or multiple of pi: ``-pi``, ``2*pi``, ``pi/2``."""
    value, divide = 1.0, False
    for part in re.split(r"([*/])", text.replace(" ", "").lower()):
        if part in "*/":
            divide = part == "/"
            continue
        sign = -1.0 if part.startswith("-") else 1.0
        name = part.lstrip("+-")
        factor = sign * {"pi": math.pi, "twopi": 2 * math.pi}.get(name, 0.0) or sign * float(name)
        value = value / factor if divide else value * factor
    return value
