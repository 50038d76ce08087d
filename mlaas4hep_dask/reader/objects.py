"""Objects that ROOT did not split, taken from the bytes of their entries.

uproot takes all objects of a class for equally long records of numbers, and does not look whether
they are. Those of ROOT::Math are written with heads that it does not expect: their values would be
pieces of the heads. Here the bytes are counted, and the heads are passed over.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import uproot
from numpy.typing import NDArray

from mlaas4hep_dask.events.events import offsets_of
from mlaas4hep_dask.reader.rawbytes import HAS_SIZE, bytes_of, whole
from mlaas4hep_dask.reader.shapes import UnfitShapeError
from mlaas4hep_dask.reader.whole import Records, Whole, is_memberwise


def is_object(interpretation: Any) -> bool:
    """True for objects, and lists of them, that uproot reads as records of numbers."""
    if isinstance(interpretation, uproot.AsJagged):
        interpretation = interpretation.content
    return isinstance(interpretation, uproot.AsStridedObjects)


def is_leaf_list(interpretation: Any) -> bool:
    """True for several leaves of one branch, which are read as records."""
    return type(interpretation) is uproot.AsDtype and interpretation.to_dtype.names is not None


def read_objects(
    holder: Any, start: int, stop: int, multiplicities: NDArray[np.int64] | None
) -> tuple[NDArray[Any] | Records, NDArray[np.int64] | None]:
    """Records of all objects of the entries [start, stop), and the offsets of lists of them.

    Parameters
    ----------
    holder : uproot.TBranch
        Holds an object, or a list of them, in every entry.
    start, stop : int
        Entries.
    multiplicities : ndarray of int64, shape (entries,), or None
        Multiplicities, if another TBranch holds them.

    Raises
    ------
    UnfitShapeError
        When the bytes are not those of such objects.
    """
    interpretation = holder.interpretation
    is_list = isinstance(interpretation, uproot.AsJagged)
    content = interpretation.content if is_list else interpretation
    data, places = bytes_of(holder, start, stop)
    begins = places[:-1]
    if not is_list:
        multiplicities = np.ones(stop - start, dtype=np.int64)
    elif multiplicities is None:
        if not _is_of_math(content) and is_memberwise(data):
            return Whole("vector", _class_of(content)).taken(holder.file, data, places)
        begins, multiplicities = _after_heads(data, places)
    if len(multiplicities) != len(begins):
        raise UnfitShapeError(f"{len(begins)} entries")
    dtype = content.from_dtype
    stride = _stride(places[1:] - begins, multiplicities, dtype.itemsize)
    firsts = np.repeat(begins, multiplicities) + stride * _numbers_within(multiplicities)
    objects = data[firsts[:, None] + np.arange(stride)]  # (objects, bytes)
    heads = stride - dtype.itemsize
    if heads and not is_list and not _is_of_math(content):  # uproot does not know of all heads
        return Whole("object", _class_of(content)).taken(holder.file, data, places)
    if heads not in ((0, 10, 20) if _is_of_math(content) else (0,)):
        raise UnfitShapeError(f"objects of {stride} bytes, expected {dtype.itemsize}")
    for place in range(0, heads, 10):
        _require_sizes(objects[:, place:], stride - place)
    records = np.ascontiguousarray(objects[:, heads:]).view(dtype).reshape(-1)
    return records, offsets_of(multiplicities) if is_list else None


def member(records: NDArray[Any] | Records, steps: Sequence[str | int], dtype: str) -> NDArray[Any]:
    """The number at the end of the steps, of every record."""
    if isinstance(records, dict) and not records:
        return np.empty(0, dtype)  # there is no object
    names = [step for step in steps if isinstance(step, str)]
    return element(records["/".join(names)], steps[len(names) :], dtype)


def element(values: NDArray[Any], places: Sequence[str | int], dtype: str) -> NDArray[Any]:
    """The number at these places of every array."""
    for place in places:
        values = values[:, int(place)]
    return np.ascontiguousarray(values, dtype=dtype)


def _is_of_math(content: Any) -> bool:
    """True for ROOT::Math, each of whose classes holds one block of numbers behind its heads."""
    return _class_of(content).startswith("ROOT::Math::")


def _class_of(content: Any) -> str:
    return str(uproot.model.classname_decode(content.model.__name__)[0])


def _after_heads(
    data: NDArray[np.uint8], places: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where the objects of every vector begin, and how many there are.

    Before them stand the bytes that follow, the vector's version, that of the class if its members
    are written one by one, with a checksum if that is 0, and the number of objects.
    """
    lengths = np.diff(places)
    if not len(lengths):
        return places[:-1], lengths
    if lengths.min() < 10:
        raise UnfitShapeError("vectors without their heads")
    first = data[places[0] : places[1]]
    head = 10
    if is_memberwise(first):
        head += 2 if whole(first[6:8])[0] else 6
    if lengths.min() < head:
        raise UnfitShapeError("vectors without their heads")
    heads = data[places[:-1, None] + np.arange(head)]
    if (heads[:, 4:6] != first[4:6]).any():
        raise UnfitShapeError("vectors that are written in several ways")
    _require_sizes(heads, lengths)
    return places[:-1] + head, whole(heads[:, head - 4 :]).astype(np.int64)


def _stride(sizes: NDArray[np.int64], multiplicities: NDArray[np.int64], expected: int) -> int:
    """Bytes from one object to the next."""
    has = multiplicities > 0
    if (sizes[~has] != 0).any():
        raise UnfitShapeError("bytes where there is no object")
    if not has.any():
        return expected
    stride = int(sizes[has][0] // multiplicities[has][0])
    if stride < expected or (sizes != multiplicities * stride).any():
        raise UnfitShapeError(f"objects that do not take {stride} bytes each")
    return stride


def _require_sizes(records: NDArray[np.uint8], size: Any) -> None:
    """Raise unless each begins with the number of bytes that follow."""
    if (whole(records[:, :4]) != HAS_SIZE + np.asarray(size) - 4).any():
        raise UnfitShapeError("objects without the heads that tell their size")


def _numbers_within(multiplicities: NDArray[np.int64]) -> NDArray[np.int64]:
    """0, 1, 2, … for the objects of every entry."""
    ends = np.cumsum(multiplicities)
    return np.arange(int(ends[-1]) if len(ends) else 0) - np.repeat(
        ends - multiplicities, multiplicities
    )
