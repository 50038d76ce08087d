"""Lists that count themselves: each begins with its number of bytes, a version, its multiplicity.

That is how ROOT writes ``std::vector<float>`` and other containers of numbers.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import numpy as np
import uproot
from numpy.typing import NDArray

from mlaas4hep_dask.reader import truncated
from mlaas4hep_dask.reader.cells import HEAD
from mlaas4hep_dask.reader.truncated import BITS, Truncated
from mlaas4hep_dask.reader.uncompress import Basket, NoOffsetsError

_HAS_SIZE = 0x40000000  # in the first four bytes of what tells how many bytes follow
_SIZE = 4  # bytes
_COUNT = 6  # bytes of a head before the multiplicity


_CONTAINERS = "vector|deque|list|forward_list|(unordered_)?(multi)?set|ROOT::VecOps::RVec|RVec"
_OF_NUMBERS = re.compile(rf"(std::)?({_CONTAINERS})<(?P<number>[A-Za-z0-9_ ]+)(,.*)?>")
_STL = 300  # the type of a member that is a container
_NUMBERS = {
    "bool": "?",
    "char": "i1",
    "signed char": "i1",
    "unsigned char": "u1",
    "short": ">i2",
    "unsigned short": ">u2",
    "int": ">i4",
    "unsigned int": ">u4",
    "long": ">i8",
    "unsigned long": ">u8",
    "long long": ">i8",
    "unsigned long long": ">u8",
    "Long64_t": ">i8",
    "ULong64_t": ">u8",
    "float": ">f4",
    "double": ">f8",
    "Double32_t": ">f4",  # whatever range its member's comment tells
}


def containers_of_numbers(branch: Any) -> Any:
    """The interpretation of a TBranch of such lists that uproot does not know, or reads slowly.

    None for any other TBranch.
    """
    if branch.classname != "TBranchElement" or branch.branches or branch.count_leaf is not None:
        return None
    is_member = branch.member("fStreamerType") == _STL
    match = _OF_NUMBERS.fullmatch(
        branch.streamer.typename if is_member else branch.member("fClassName")
    )
    number = match["number"].strip() if match else ""
    if number == "Float16_t":  # whatever range its member's comment tells
        return truncated.Lists(Truncated(0.0, 0.0, BITS, "float32"), head=HEAD)
    if number not in _NUMBERS or isinstance(branch.interpretation, uproot.AsJagged):
        return None
    disk_type = _NUMBERS[number]
    memory_type = "f8" if number == "Double32_t" else disk_type.replace(">", "=")
    return uproot.AsJagged(uproot.AsDtype(disk_type, memory_type), header_bytes=HEAD)


class Lists(NamedTuple):
    """Lists of the entries from ``first`` on.

    Parameters
    ----------
    first : int
        The first entry.
    multiplicities : ndarray of int64, shape (entries,)
        Their multiplicities.
    values : ndarray, shape (values,)
        Big-endian numbers.
    """

    first: int
    multiplicities: NDArray[np.int64]
    values: NDArray[Any]

    def within(self, start: int, stop: int) -> Lists:
        """Those of the entries [start, stop), which these have."""
        low, high = start - self.first, stop - self.first
        begin = int(self.multiplicities[:low].sum())
        end = begin + int(self.multiplicities[low:high].sum())
        return Lists(start, self.multiplicities[low:high], self.values[begin:end])


def lists_in(basket: Basket, data: memoryview, dtype: np.dtype[Any]) -> Lists:
    """The lists of all entries of a basket, of big-endian numbers of a dtype.

    Raises
    ------
    NoOffsetsError
        When the basket does not tell where its entries begin.
    ValueError
        When the heads of lists tell other sizes than these places; names the first entry.
    """
    num_entries, border, itemsize = basket.last - basket.first, basket.border, dtype.itemsize
    if num_entries == 0:
        return Lists(basket.first, np.empty(0, np.int64), np.empty(0, dtype))
    ends = entry_ends(basket, data)
    begins, lengths = ends[:-1], np.diff(ends)
    _refuse(basket, lengths < HEAD, "is shorter than its head")
    _refuse(basket, np.array([begins[0] != 0]), "begins behind other bytes")
    # All groups of four bytes, of which some are numbers.
    fours: NDArray[Any] = np.ndarray((border - _SIZE + 1,), ">u4", data, 0, (1,))
    multiplicities = fours[begins + _COUNT].astype(np.int64)
    tells = fours[begins].astype(np.int64)
    _refuse(
        basket, tells != _HAS_SIZE + lengths - _SIZE, "says another number of bytes than it has"
    )
    _refuse(
        basket,
        HEAD + multiplicities * itemsize != lengths,
        "says another number of values than it has",
    )
    unit = min(itemsize, 2)
    pieces = np.frombuffer(data, f"u{unit}", border // unit)
    is_number = np.ones(len(pieces), dtype=bool)
    is_number[begins[:, None] // unit + np.arange(HEAD // unit)] = False
    return Lists(basket.first, multiplicities, pieces[is_number].view(dtype))


def entry_ends(basket: Basket, data: memoryview) -> NDArray[np.int64]:
    """Where the entries of a basket begin in its data, and where the last one ends.

    Raises
    ------
    NoOffsetsError
        When the basket does not tell.
    ValueError
        When it tells places outside, or in another order.
    """
    # int32: the number of entries + 1, the byte offset of each entry counted from the key, 0.
    num_entries = basket.last - basket.first
    if len(data) - basket.border < 4 * (num_entries + 1):
        raise NoOffsetsError("no entry offsets")
    raw = np.frombuffer(data, ">i4", num_entries + 1, basket.border)
    ends = np.append(raw[1:].astype(np.int64) - basket.keylen, basket.border)
    if not 0 <= ends[0] <= ends[-1] or (np.diff(ends) < 0).any():
        low, high = int(ends.min()), int(ends.max())
        raise ValueError(f"{basket}: offsets {low}-{high} in its {basket.border} bytes of values")
    return ends


def _refuse(basket: Basket, is_bad: NDArray[np.bool_], what: str) -> None:
    if is_bad.any():
        entry = basket.first + int(np.flatnonzero(is_bad)[0])
        raise ValueError(f"{basket}: the list of entry {entry} {what}")
