"""Objects of plain numbers that ROOT did not split: structs, vectors and TClonesArrays of them.

An entry has either whole objects, or one member of all objects after the other.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import awkward as ak
import numpy as np
import uproot
from numpy.typing import NDArray

from mlaas4hep_dask.events.events import offsets_of
from mlaas4hep_dask.reader.layout import (
    BASE,
    TOBJECT,
    Field,
    fields_of_member,
    fields_of_members,
    fields_of_object,
    form_of,
    size_of,
    split_up,
    why_not_plain,
)
from mlaas4hep_dask.reader.rawbytes import HAS_SIZE, bytes_of, number, whole
from mlaas4hep_dask.reader.shapes import UnfitShapeError

_MEMBERWISE = 0x4000  # in the version of a vector
_BYPASS = 0x1000  # in the flags of a TClonesArray: its members are written one by one
_CLONES = b"\x0cTClonesArray\0"  # the name of the class, before an object of any class
WRITE_IT_SPLIT = "write the branch with a split level of 99"
Records = dict[str, NDArray[Any]]


class Whole(NamedTuple):
    """What the bytes of a TBranch with such objects mean.

    Parameters
    ----------
    kind : str
        What an entry has: one object, or several.
    name : str
        Of their class.
    """

    kind: Literal["object", "vector", "TClonesArray"]
    name: str

    def form(self, file: Any) -> Any:
        """The awkward form of what is read."""
        form = form_of(file, self.name)
        return form if self.kind == "object" else ak.forms.ListOffsetForm("i64", form)

    def read(self, holder: Any, start: int, stop: int) -> tuple[Records, NDArray[np.int64] | None]:
        """The numbers of all objects of the entries [start, stop), and the offsets of their lists.

        There are no numbers where there is no object.

        Raises
        ------
        UnfitShapeError
            When the bytes are not those of such objects.
        """
        return self.taken(holder.file, *bytes_of(holder, start, stop))

    def taken(
        self, file: Any, data: NDArray[np.uint8], places: NDArray[np.int64]
    ) -> tuple[Records, NDArray[np.int64] | None]:
        """As `read`, from the bytes of the entries, which begin at these places."""
        if self.kind == "object":
            return self._one(file, data, places), None
        reader = _vectors if self.kind == "vector" else _clones
        begins, multiplicities, described = reader(file, self.name, data, places)
        offsets = offsets_of(multiplicities)
        if not offsets[-1]:
            if (begins != places[1:]).any():
                raise UnfitShapeError("bytes where there is no object")
            return {}, offsets
        first = int(np.flatnonzero(multiplicities)[0])
        at, blocks = int(begins[first]), list[list[Field]]()
        if described is not None:
            for each in described.elements:
                if each.member("fType") == BASE:
                    raise UnfitShapeError(f"members of the base class {each.name}, one by one")
                blocks.append(fields_of_member(file, each, data, at))
                at += size_of(blocks[-1]) * int(multiplicities[first])
        else:  # each with a byte that says that it is there
            flag = Field("@flag", np.dtype("V1"))
            blocks.append([flag, *fields_of_object(file, self.name, data, at + 1)])
            if data[at] != 1:
                raise UnfitShapeError("places without an object")
        fields = [field for block in blocks for field in block]
        if (begins + multiplicities * size_of(fields) != places[1:]).any():
            raise UnfitShapeError(f"other bytes than {size_of(fields)} for each {self.name}")
        return split_up(_gathered(data, begins, multiplicities, blocks), fields), offsets

    def _one(self, file: Any, data: NDArray[np.uint8], places: NDArray[np.int64]) -> Records:
        lengths = np.diff(places)
        if not len(lengths):
            return {}
        try:
            fields = fields_of_members(file, file.streamer_named(self.name), data, 0)
        except UnfitShapeError:
            fields = []
        if size_of(fields) != lengths[0]:  # it has a head of its own
            fields = fields_of_object(file, self.name, data, 0)
        if (lengths != size_of(fields)).any():
            raise UnfitShapeError(f"other bytes than {size_of(fields)} for each {self.name}")
        return split_up(data.reshape(len(lengths), -1), fields)


def is_memberwise(data: NDArray[np.uint8]) -> bool:
    """True when the vector that begins there has one member of all objects after the other."""
    return len(data) >= 6 and bool(number(data, 4, 2) & _MEMBERWISE)


Lists = tuple[NDArray[np.int64], NDArray[np.int64], Any]


def _vectors(file: Any, name: str, data: NDArray[np.uint8], places: NDArray[np.int64]) -> Lists:
    """Where the objects of every vector begin, how many there are, and the class's description.

    Before them stand the bytes that follow, the vector's version, that of the class, with a
    checksum if that is 0, and the number of objects.
    """
    if len(places) == 1:
        return places[:0], places[:0], None
    version = number(data, 6, 2)
    head = 12 if version else 16
    if not is_memberwise(data):
        raise UnfitShapeError("vectors that are not written member by member")
    described = file.streamer_named(name, version) if version else file.streamer_named(name)
    if described is None or not (version or described.member("fCheckSum") == number(data, 8, 4)):
        raise UnfitShapeError(f"another {name} than the file describes")
    heads = _heads(data, places, head, size_at=0, count_at=head - 4)
    return places[:-1] + head, whole(heads[:, -4:]).astype(np.int64), described


def _clones(file: Any, name: str, data: NDArray[np.uint8], places: NDArray[np.int64]) -> Lists:
    """As `_vectors`; the description is None where the objects are written one by one.

    Before them stand the bytes that follow, a version, what TObject has, the name of the array,
    class and version of the objects, their number, and that of the first.
    """
    if len(places) == 1:
        return places[:0], places[:0], None
    start = _start_of_clones(data)
    end, text = _text(data, _text(data, start + 6 + TOBJECT)[0])
    kind, _, version = text.partition(";")
    described = file.streamer_named(name, int(version or 0))
    if kind != name or described is None:
        raise UnfitShapeError(f"objects of {text}, which is no {name} as the file describes it")
    heads = _heads(data, places, end + 8, size_at=start, count_at=end)
    if heads[:, end + 4 :].any():
        raise UnfitShapeError("arrays that do not begin with object 0")
    is_memberwise = number(data, start + 12, 4) & _BYPASS
    multiplicities = whole(heads[:, end : end + 4]).astype(np.int64)
    return places[:-1] + end + 8, multiplicities, described if is_memberwise else None


def _heads(
    data: NDArray[np.uint8], places: NDArray[np.int64], size: int, *, size_at: int, count_at: int
) -> NDArray[np.uint8]:
    """The heads of all entries, which are equal but for sizes and multiplicities."""
    lengths = np.diff(places)
    if lengths.min() < size:
        raise UnfitShapeError("lists without their heads")
    heads: NDArray[np.uint8] = data[places[:-1, None] + np.arange(size)]
    if (whole(heads[:, size_at : size_at + 4]) != HAS_SIZE + lengths - size_at - 4).any():
        raise UnfitShapeError("lists without the heads that tell their size")
    same = np.ones(size, dtype=bool)
    same[size_at : size_at + 4] = same[count_at : count_at + 4] = False
    if (heads[:, same] != heads[0, same]).any():
        raise UnfitShapeError("lists that are written in several ways")
    return heads


def _start_of_clones(data: NDArray[np.uint8]) -> int:
    """Where a TClonesArray begins: behind the name of its class, if there is one."""
    return len(_CLONES) if data[: len(_CLONES)].tobytes() == _CLONES else 0


def _text(data: NDArray[np.uint8], at: int) -> tuple[int, str]:
    """Where a string that begins there ends, and the string."""
    length, at = number(data, at, 1), at + 1
    if length == 255:
        length, at = number(data, at, 4), at + 4
    number(data, at + length - 1, 1)  # there are as many bytes
    return at + length, data[at : at + length].tobytes().decode("utf-8", "surrogateescape")


def _class_of_clones(branch: Any) -> str:
    """The class of objects in a TClonesArray, which the first entry tells; else empty."""
    if not branch.num_entries:
        return ""
    data, _ = bytes_of(branch, 0, 1)
    text = _text(data, _text(data, _start_of_clones(data) + 6 + TOBJECT)[0])[1]
    return text.partition(";")[0]


def _gathered(
    data: NDArray[np.uint8],
    begins: NDArray[np.int64],
    multiplicities: NDArray[np.int64],
    blocks: list[list[Field]],
) -> NDArray[np.uint8]:
    """The bytes of each object, from the blocks that each entry has of all its objects."""
    numbers = np.arange(int(multiplicities.sum())) - np.repeat(
        np.cumsum(multiplicities) - multiplicities, multiplicities
    )
    starts, many = np.repeat(begins, multiplicities), np.repeat(multiplicities, multiplicities)
    pieces, before = [], 0
    for block in blocks:
        size = size_of(block)
        firsts = starts + before * many + size * numbers
        pieces.append(data[firsts[:, None] + np.arange(size)])
        before += size
    return np.concatenate(pieces, axis=1)  # (objects, bytes)


def whole_objects(branch: Any) -> Whole | None:
    """What a TBranch has if it is objects of plain numbers that uproot does not read; else None."""
    objects = kind_of(branch)
    if objects is None or objects.name == "":
        return None
    # How ROOT orders the members of a base class among those of all objects is not for sure.
    with_bases = objects.kind == "object"
    is_described = branch.file.streamer_named(objects.name) is not None
    is_plain = is_described and not why_not_plain(branch.file, objects.name, with_bases=with_bases)
    return objects if is_plain else None


def why_not_read(branch: Any) -> str:
    """Why the objects of a TBranch are no inputs, as a sentence without its subject."""
    objects = kind_of(branch)
    if objects is None:
        return f"of type {branch.typename}"
    what = objects.name if objects.kind == "object" else f"a {objects.kind} of {objects.name}"
    if objects.name == "":
        return f"a {objects.kind}, which was not split, and no entry tells of what"
    if branch.file.streamer_named(objects.name) is None:
        return f"{what}, which was not split, and of which the file has no description"
    why = why_not_plain(branch.file, objects.name, with_bases=objects.kind == "object")
    return f"{what}, which was not split, and has {why}; {WRITE_IT_SPLIT}"


def kind_of(branch: Any) -> Whole | None:
    """The objects that uproot does not know how to read; None for anything else."""
    if branch.classname not in ("TBranchObject", "TBranchElement"):
        return None
    if branch.branches or branch.count_leaf is not None:
        return None
    if branch.member("fClassName") == "TClonesArray":
        return Whole("TClonesArray", _class_of_clones(branch))
    if type(branch.interpretation) is not uproot.AsObjects:
        return None
    content = branch.interpretation.model
    kind: Literal["object", "vector"] = "object"
    if isinstance(content, uproot.containers.AsVector):
        kind, content = "vector", content.values
    models = (uproot.model.Model, uproot.model.DispatchByVersion)
    if not (isinstance(content, type) and issubclass(content, models)):
        return None
    return Whole(kind, str(uproot.model.classname_decode(content.__name__)[0]))
