"""Where the numbers of an object stand among its bytes, as its file describes the classes.

The members follow each other in the order of their class. An object within an object has a head:
how many bytes follow, a version of its class, and a checksum of the class if that is 0. All are
compared.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import awkward as ak
import numpy as np
from numpy.typing import NDArray

from mlaas4hep_dask.reader.rawbytes import HAS_SIZE, number
from mlaas4hep_dask.reader.reduced import truncated_as
from mlaas4hep_dask.reader.shapes import UnfitShapeError
from mlaas4hep_dask.reader.truncated import Truncated

TOBJECT = 10  # bytes of the base class TObject: a version, a number, flags
BASE, _BASE_TOBJECT, _OBJECT, _ANY = 0, 66, 61, 62  # kinds of members
_NUMBERS = {
    1: "i1",
    2: ">i2",
    3: ">i4",
    4: ">i8",  # long
    5: ">f4",
    6: ">i4",  # a counter
    8: ">f8",
    11: "u1",
    12: ">u2",
    13: ">u4",
    14: ">u8",  # unsigned long
    16: ">i8",
    17: ">u8",
    18: "?",
}
_REDUCED = {9: "float64", 19: "float32"}  # Double32_t, Float16_t


class Field(NamedTuple):
    """Some bytes of an object.

    Parameters
    ----------
    name : str
        Of a member, with those that it is a member of: ``p4/fP/fX``; with ``@`` for a head.
    dtype : dtype
        Of the bytes; with a shape for an array.
    number : Truncated or None
        How numbers are kept that NumPy does not know.
    """

    name: str
    dtype: np.dtype[Any]
    number: Truncated | None = None


def size_of(fields: list[Field]) -> int:
    """Their bytes."""
    return sum(field.dtype.itemsize for field in fields)


def why_not_plain(file: Any, name: str, *, with_bases: bool = True) -> str:
    """What of a class is neither a number nor an object of numbers; empty if nothing is."""
    for member in file.streamer_named(name).elements:
        kind = member.member("fType")
        if kind in _NUMBERS or kind in _REDUCED or kind == _BASE_TOBJECT:
            continue
        if kind == BASE and not with_bases:
            return f"the base class {member.name}"
        if kind in (BASE, _OBJECT, _ANY):
            inner = member.name if kind == BASE else member.typename
            if file.streamer_named(inner) is None:
                return (
                    f"{member.name!r} of type {member.typename}, which the file does not describe"
                )
            if why := why_not_plain(file, inner):
                return why
            continue
        return f"{member.name!r} of type {member.typename}"
    return ""


def form_of(file: Any, name: str) -> Any:
    """The awkward form of a class of plain numbers, from its description in this very file.

    uproot keeps one form for all files that have a class of this name and version.
    """
    forms: dict[str, Any] = {}
    for member in file.streamer_named(name).elements:
        kind = member.member("fType")
        if kind == BASE:
            base = form_of(file, member.name)
            forms |= zip(base.fields, base.contents, strict=True)
        elif kind in (_OBJECT, _ANY):
            forms[member.name] = form_of(file, member.typename)
        elif kind != _BASE_TOBJECT:
            dtype = _REDUCED.get(kind) or np.dtype(_NUMBERS[kind]).name
            form: Any = ak.forms.NumpyForm(dtype)
            length = int(member.member("fArrayLength"))
            forms[member.name] = ak.forms.RegularForm(form, length) if length else form
    parameters = {"__record__": name}
    return ak.forms.RecordForm(list(forms.values()), list(forms), parameters=parameters)


def fields_of_object(
    file: Any, name: str, data: NDArray[np.uint8], at: int, prefix: str = ""
) -> list[Field]:
    """The fields of the object that begins there with its head.

    Raises
    ------
    UnfitShapeError
        When another number of bytes is told than the members of its class take.
    """
    size_word, version, checksum = (
        number(data, at + n, size) for n, size in ((0, 4), (4, 2), (6, 4))
    )
    if version:
        described = file.streamer_named(name, version)
        is_known = described is not None
    else:
        described = file.streamer_named(name)
        is_known = described is not None and described.member("fCheckSum") == checksum
    if not size_word & HAS_SIZE or not is_known:
        raise UnfitShapeError(f"an object that is no {name} as the file describes it")
    head = 6 if version else 10
    fields = [Field(f"{prefix}@{at}", np.dtype(f"V{head}"))]
    fields += fields_of_members(file, described, data, at + head, prefix)
    if size_of(fields) != size_word - HAS_SIZE + 4:
        raise UnfitShapeError(
            f"{size_word - HAS_SIZE + 4} bytes for a {name}, not {size_of(fields)}"
        )
    return fields


def fields_of_members(
    file: Any, described: Any, data: NDArray[np.uint8], at: int, prefix: str = ""
) -> list[Field]:
    """The fields of all members of a class, the first of which begins there."""
    fields: list[Field] = []
    for member in described.elements:
        fields += fields_of_member(file, member, data, at + size_of(fields), prefix)
    return fields


def fields_of_member(
    file: Any, member: Any, data: NDArray[np.uint8], at: int, prefix: str = ""
) -> list[Field]:
    """The fields of one member that begins there; raises as `fields_of_object` does."""
    kind, name = member.member("fType"), f"{prefix}{member.name}"
    length = int(member.member("fArrayLength"))
    shape = (length,) if length else ()  # one axis, as in uproot's form of the class
    if kind == _BASE_TOBJECT:
        return [Field(f"{prefix}@TObject@{at}", np.dtype(f"V{TOBJECT}"))]
    if kind == BASE:
        return fields_of_object(file, member.name, data, at, prefix)
    if kind in (_OBJECT, _ANY):
        return fields_of_object(file, member.typename, data, at, f"{name}/")
    if kind in _REDUCED:
        reduced = truncated_as(member.member("fTitle"), _REDUCED[kind])
        on_disk = np.dtype(">f4") if reduced is None else reduced.stored
        return [Field(name, np.dtype((on_disk, shape)), reduced)]
    if kind in _NUMBERS:
        return [Field(name, np.dtype((_NUMBERS[kind], shape)))]
    raise UnfitShapeError(f"{member.name!r} of type {member.typename}")


def split_up(objects: NDArray[np.uint8], fields: list[Field]) -> dict[str, NDArray[Any]]:
    """By name: the numbers of all objects.

    Parameters
    ----------
    objects : ndarray of uint8, shape (objects, bytes)
        At least one.
    fields : list of Field
        Of the first of them.

    Raises
    ------
    UnfitShapeError
        When the heads of another one are others.
    """
    numbers: dict[str, NDArray[Any]] = {}
    at = 0
    for field in fields:
        part = np.ascontiguousarray(objects[:, at : at + field.dtype.itemsize])
        at += field.dtype.itemsize
        if "@TObject@" in field.name:
            if (part[:, :2] != (0, 1)).any() or (part[:, 9] & 16).any():
                raise UnfitShapeError("objects of which a TRef knows, which take more bytes")
        elif "@" in field.name:
            if (part != part[0]).any():
                raise UnfitShapeError("objects with unlike heads")
        else:
            values = part.view(field.dtype.base).reshape(-1, *field.dtype.shape)
            numbers[field.name] = values if field.number is None else field.number.values(values)
    return numbers
