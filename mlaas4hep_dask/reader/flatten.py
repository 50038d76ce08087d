"""Events of the awkward records that a user's function returns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import awkward as ak
import numpy as np
from numpy.typing import NDArray

from mlaas4hep_dask.errors import DataError
from mlaas4hep_dask.events.events import Branch, Events


@dataclass(frozen=True, slots=True)
class Field:
    """A field of nested records, as a branch or with the reason why it is none."""

    path: tuple[str, ...]
    branch: Branch | str

    @property
    def name(self) -> str:
        """The names along the path, joined as in NanoAOD: ``Jet_pt``."""
        return "_".join(self.path)


def fields_of(array: ak.Array) -> dict[str, Field]:
    """The fields of records by the names of their branches; nothing is read for it.

    A list of records, such as NanoEvents' ``Jet``, is a collection, and its numbers are jagged
    branches. Other lists are of the collection whose name stands before the first underscore.
    """
    fields: dict[str, Field] = {}
    for each in _walk((), ak.type(array).content, None):
        fields.setdefault(each.name, each)
    return fields


def _walk(path: tuple[str, ...], kind: Any, collection: str | None) -> Iterator[Field]:
    kind, is_option = _bare(kind)
    if isinstance(kind, ak.types.RecordType):
        for name in kind.fields or ():
            yield from _walk((*path, name), kind.content(name), collection)
        return
    if isinstance(kind, ak.types.ListType) and collection is None:
        inner, is_option = _bare(kind.content)
        full_name = "_".join(path)
        if isinstance(inner, ak.types.RecordType):
            yield from _walk(path, inner, full_name)
        elif isinstance(inner, ak.types.NumpyType):
            yield Field(path, _branch(full_name, inner, full_name.split("_", 1)[0], is_option))
        else:
            yield Field(path, _described(kind))
        return
    if isinstance(kind, ak.types.NumpyType):
        yield Field(path, _branch("_".join(path), kind, collection, is_option))
    else:
        yield Field(path, _described(kind))


def _described(kind: Any) -> str:
    return f"of type {str(kind).split('[parameters')[0]}"


def _bare(kind: Any) -> tuple[Any, bool]:
    is_option = isinstance(kind, ak.types.OptionType)
    return (kind.content if is_option else kind), is_option


def _branch(name: str, kind: Any, collection: str | None, is_option: bool) -> Branch | str:
    dtype = np.dtype(kind.primitive)
    if dtype.kind not in "biuf":
        return _described(kind)
    if is_option and dtype.kind != "f":
        dtype = np.dtype("float64")  # a missing value is NaN
    if dtype.kind == "f" and dtype.itemsize not in (4, 8):
        dtype = np.dtype("float32" if dtype.itemsize == 2 else "float64")
    return Branch(name, "flat" if collection is None else "jagged", dtype.name, collection)


def flattened(array: ak.Array, fields: Sequence[Field]) -> Events:
    """Events with the given fields of an array of records.

    Raises
    ------
    DataError
        When branches of one collection have different multiplicities, or values do not fit into
        the whole numbers that a field is said to hold.
    """
    contents: dict[str, NDArray[Any]] = {}
    offsets: dict[str, NDArray[np.int64]] = {}
    branches = []
    for each in fields:
        branch = each.branch
        assert isinstance(branch, Branch)  # others are never asked for
        branches.append(branch)
        values = array
        for name in each.path:
            values = values[name]
        if branch.collection is None:
            contents[branch.name] = _numbers(values, branch)
            continue
        if isinstance(ak.type(values).content, ak.types.OptionType):
            values = ak.fill_none(values, [], axis=0)
        packed = ak.to_packed(values, highlevel=False).to_ListOffsetArray64(True)
        ends = np.asarray(packed.offsets.data, dtype=np.int64)
        if not np.array_equal(offsets.setdefault(branch.collection, ends), ends):
            raise DataError(
                f"branch {branch.name!r} has other multiplicities than the rest of collection "
                f"{branch.collection!r}; give it a name with another beginning",
                branch=branch.name,
            )
        contents[branch.name] = _numbers(ak.Array(packed.content), branch)
    return Events(len(array), tuple(branches), contents, offsets)


def _numbers(values: ak.Array, branch: Branch) -> NDArray[Any]:
    if isinstance(ak.type(values).content, ak.types.OptionType):
        values = ak.fill_none(values, np.nan)
    raw = ak.to_numpy(values, allow_missing=False)
    with np.errstate(invalid="ignore", over="ignore"):
        numbers = np.ascontiguousarray(raw, dtype=branch.dtype)
    if numbers.dtype.kind in "biu" and not np.array_equal(numbers, raw):
        raise DataError(
            f"branch {branch.name!r} is {branch.dtype} in the first events, and {raw.dtype} with "
            "values that do not fit into that here; make it float everywhere",
            branch=branch.name,
        )
    return numbers
