"""Numbers of ``Double32_t`` and ``Float16_t`` of which fewer bits are kept, with ROOT's values."""

from __future__ import annotations

from typing import Any, NamedTuple

import awkward as ak
import numpy as np
from numpy.typing import NDArray

from mlaas4hep_dask.events.events import offsets_of
from mlaas4hep_dask.reader.rawbytes import HAS_SIZE, bytes_of, whole
from mlaas4hep_dask.reader.shapes import UnfitShapeError

BITS = 12  # of the mantissa of a Float16_t without a range


class Truncated(NamedTuple):
    """How such a number is kept: as a part of a range, or as a float with a short mantissa.

    Parameters
    ----------
    low, high : float
        The range; without one both are 0.
    bits : int
        Of the number within its range, or of the mantissa.
    dtype : str
        Of the values.
    """

    low: float
    high: float
    bits: int
    dtype: str

    @property
    def stored(self) -> np.dtype[Any]:
        """What a file has for a number."""
        if self.low < self.high:
            return np.dtype(">u4")
        return np.dtype([("exponent", "u1"), ("mantissa", ">u2")])

    def values(self, numbers: NDArray[Any]) -> NDArray[Any]:
        """The numbers, as TBuffer's ReadWithFactor and ReadWithNbits compute them."""
        if self.low < self.high:
            most = float(1 << self.bits) if self.bits < 32 else float(0xFFFFFFFF)
            factor = most / (self.high - self.low)
            return (numbers / factor + self.low).astype(self.dtype)
        mantissa = numbers["mantissa"].astype(np.uint32)
        fraction = (mantissa & ((1 << (self.bits + 1)) - 1)) << (23 - self.bits)
        result = ((numbers["exponent"].astype(np.uint32) << 23) | fraction).view("f4")
        return np.where(mantissa & (1 << (self.bits + 1)), -result, result).astype(self.dtype)


class Lists(NamedTuple):
    """What the bytes of a TBranch with lists of such numbers mean.

    Parameters
    ----------
    number : Truncated
        How each is kept.
    shape : tuple of int
        Of the array that each object has; empty for one number.
    head : int
        Bytes by which a list counts itself; 0 if another TBranch does.
    """

    number: Truncated
    shape: tuple[int, ...] = ()
    head: int = 0

    def form(self) -> Any:
        """The awkward form of what is read."""
        form: Any = ak.forms.NumpyForm(self.number.dtype)
        for size in self.shape[::-1]:
            form = ak.forms.RegularForm(form, size)
        return ak.forms.ListOffsetForm("i64", form)

    def read(
        self, holder: Any, start: int, stop: int, multiplicities: NDArray[np.int64] | None
    ) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """The numbers of the entries [start, stop), and the offsets of their lists.

        Raises
        ------
        UnfitShapeError
            When the bytes are not those of such lists.
        """
        data, places = bytes_of(holder, start, stop)
        each = int(np.prod(self.shape, dtype=np.int64)) * self.number.stored.itemsize
        lengths = np.diff(places) - self.head
        if (lengths < 0).any():
            raise UnfitShapeError("lists without their heads")
        if self.head:
            heads = data[places[:-1, None] + np.arange(self.head)]
            multiplicities = whole(heads[:, -4:]).astype(np.int64)
            size_words = whole(heads[:, :4])
            if (size_words != HAS_SIZE + lengths + self.head - 4).any():
                raise UnfitShapeError("lists without the heads that tell their size")
        if multiplicities is None or (multiplicities * each != lengths).any():
            raise UnfitShapeError(f"other bytes than {each} for each object")
        within = np.arange(len(data)) - np.repeat(places[:-1], np.diff(places))
        values = data[within >= self.head].view(self.number.stored)
        return self.number.values(values).reshape(-1, *self.shape), offsets_of(multiplicities)
