"""The bytes that a TBranch has for its entries, as they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import uproot
from numpy.typing import NDArray

from mlaas4hep_dask.reader.shapes import UnfitShapeError

HAS_SIZE = 0x40000000  # in the first four bytes of what tells how many bytes follow
_BYTES = uproot.AsJagged(uproot.AsDtype("u1"))


def bytes_of(holder: Any, start: int, stop: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The bytes of the entries [start, stop), and where each entry begins and the last one ends.

    Raises
    ------
    UnfitShapeError
        When there are other entries than asked for.
    """
    layout = holder.array(_BYTES, entry_start=start, entry_stop=stop, library="ak").layout
    packed = layout.to_ListOffsetArray64(True).to_packed()
    places = np.asarray(packed.offsets.data, dtype=np.int64)
    if len(places) != stop - start + 1:
        raise UnfitShapeError(f"{len(places) - 1} entries")
    return np.asarray(packed.content.data), places


def whole(data: NDArray[np.uint8]) -> NDArray[Any]:
    """Unsigned numbers of as many bytes as the last axis has."""
    return np.ascontiguousarray(data).view(f">u{data.shape[-1]}").reshape(-1)


def number(data: NDArray[np.uint8], at: int, size: int) -> int:
    """The unsigned number in the bytes that begin there; fewer bytes are an `UnfitShapeError`."""
    if at < 0 or at + size > len(data):
        raise UnfitShapeError("objects that end before their last member")
    return int.from_bytes(data[at : at + size].tobytes(), "big")
