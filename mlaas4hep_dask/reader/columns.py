"""Columns of Arrow tables as branches, and their values as flat arrays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mlaas4hep_dask.events.events import Branch, offsets_of


class UnfitColumnError(Exception):
    """A column does not hold what its first rows promised; the message names it."""


@dataclass(frozen=True)
class Leaf:
    """Where the values of a branch stand: names from the column inwards, and their type.

    ``path`` has one more name for each record around the values; ``is_list`` says that a list is
    around them too.
    """

    path: tuple[str, ...]
    type: Any
    is_list: bool


def leaves_of(schema: Any) -> dict[str, Leaf | str]:
    """By name of the branch: where its values stand, or why it cannot be an input.

    Records become one branch per member, ``Jet_pt`` for the member ``pt`` of ``Jet``.
    """
    leaves: dict[str, Leaf | str] = {}
    for field in schema:
        for leaf_path, type_, is_list in _walk((field.name,), field.type, is_list=False):
            name = "_".join(leaf_path)
            reason = _why_not(type_)
            if name in leaves:
                leaves[name] = "a name that two columns have"
            else:
                wide = pa.float32() if pa.types.is_float16(type_) else type_
                leaves[name] = reason or Leaf(leaf_path, wide, is_list)
    return leaves


def _walk(
    path: tuple[str, ...], type_: Any, *, is_list: bool
) -> Iterator[tuple[tuple[str, ...], Any, bool]]:
    if pa.types.is_struct(type_):
        for member in type_:
            yield from _walk((*path, member.name), member.type, is_list=is_list)
    elif _is_list(type_) and not is_list:
        yield from _walk(path, type_.value_type, is_list=True)
    else:
        yield path, type_, is_list


def _is_list(type_: Any) -> bool:
    types = pa.types
    return bool(
        types.is_list(type_) or types.is_large_list(type_) or types.is_fixed_size_list(type_)
    )


def _why_not(type_: Any) -> str | None:
    types = pa.types
    if types.is_integer(type_) or types.is_boolean(type_):
        return None
    if types.is_floating(type_):
        return None
    if types.is_string(type_) or types.is_large_string(type_):
        return "a string"
    if types.is_null(type_):
        return "without a value in the first rows; its type can be given in reading.types"
    return f"doubly nested ({type_})" if _is_list(type_) else f"of type {type_}"


def branches_of(leaves: Mapping[str, Leaf]) -> dict[str, Branch]:
    """The branches, with the collections that the schema tells.

    The members of a list of records form a collection, any other list is one of its own.
    """
    branches = {}
    for name, leaf in leaves.items():
        dtype = np.dtype(leaf.type.to_pandas_dtype()).name
        if leaf.is_list:
            collection = "_".join(leaf.path[:-1]) or name
            branches[name] = Branch(name, "jagged", dtype, collection)
        else:
            branches[name] = Branch(name, "flat", dtype)
    return branches


def retyped(leaves: Mapping[str, Leaf | str], types: Mapping[str, str]) -> dict[str, Leaf | str]:
    """The leaves with the types that the user gave."""
    copy = dict(leaves)
    for name, type_name in types.items():
        leaf = copy.get(name)
        if isinstance(leaf, Leaf):
            copy[name] = replace(leaf, type=pa.from_numpy_dtype(np.dtype(type_name)))
    return copy


def values_of(column: Any, leaf: Leaf, name: str) -> tuple[NDArray[Any], NDArray[np.int64] | None]:
    """Flat values of a column, native and without null, and the offsets of its lists.

    A null among floats is NaN.

    Raises
    ------
    UnfitColumnError
        When a list, a record or an integer is null, or a value does not fit the type.
    """
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    offsets: NDArray[np.int64] | None = None
    members = list(leaf.path[1:])
    while not (offsets is not None or not leaf.is_list) or members:
        if _is_list(array.type):
            _require_no_null(array, name, "list")
            lengths = pc.fill_null(pc.list_value_length(array), 0)
            offsets = offsets_of(lengths.to_numpy(zero_copy_only=False))
            array = array.flatten()
        else:
            _require_no_null(array, name, "record")
            array = pc.struct_field(array, members.pop(0))
    if array.type != leaf.type:
        try:
            array = array.cast(leaf.type)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise UnfitColumnError(f"column {name!r} does not fit: {error}") from error
    if not pa.types.is_floating(leaf.type):
        _require_no_null(array, name, "value")
    values = array.to_numpy(zero_copy_only=False)
    return np.ascontiguousarray(values), offsets


def _require_no_null(array: Any, name: str, what: str) -> None:
    if array.null_count:
        raise UnfitColumnError(
            f"column {name!r} has {array.null_count} {what}s that are null, and only a float "
            "can be missing" + ("; reading.types can make it one" if what == "value" else "")
        )
