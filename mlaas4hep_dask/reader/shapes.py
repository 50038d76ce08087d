"""Numbers inside what uproot reads for an entry: where they are, and how they are taken out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlaas4hep_dask.reader.vectors import components

Steps = tuple[str | int, ...]
MAX_ELEMENTS = 4096  # of one array; each is an input of its own
_OF_TOBJECT = {"fUniqueID", "fBits"}  # the bookkeeping of ROOT's base class


class UnfitShapeError(Exception):
    """What was read does not have the shape that was promised."""


@dataclass(frozen=True, slots=True)
class Inside:
    """One number of an entry, or of each object in a list of the entry.

    Parameters
    ----------
    steps : tuple of str or int
        Names of members and numbers of elements on the way to it; empty when there is nothing else.
    labels : tuple of str or int
        The same as people call them, for a part of a name.
    dtype : str or None
        Of the number; None when there is none.
    list_at : int or None
        How many steps stand before the list of objects; None without a list.
    reason : str
        Why it cannot be an input; empty if it can.
    """

    steps: Steps
    labels: Steps
    dtype: str | None
    list_at: int | None
    reason: str = ""

    @property
    def suffix(self) -> str:
        """The labels as a part of a name: ``.px`` or ``[0][2]``."""
        return "".join(f".{each}" if isinstance(each, str) else f"[{each}]" for each in self.labels)


def numbers_in(form: Any) -> list[Inside]:
    """All numbers of an awkward form, in their order, and what else it holds, with a reason."""
    return list(_walk(form, (), (), None))


def numbers_of(dtype: Any) -> list[Inside]:
    """As `numbers_in`, of the leaves of a leaf list, each of which may be an array."""
    numbers: list[Inside] = []
    for name in dtype.names:
        base, shape = dtype[name].base, dtype[name].shape
        size = int(np.prod(shape, dtype=np.int64))
        if base.kind not in "biuf" or size > MAX_ELEMENTS:
            numbers.append(Inside((name,), (name,), None, None, f"of type {dtype[name]}"))
            continue
        kind = base.newbyteorder("=").name
        ways = ((name, *place) for place in np.ndindex(*shape))
        numbers += [Inside(way, way, kind, None) for way in ways]
    return numbers


def _walk(form: Any, steps: Steps, labels: Steps, list_at: int | None) -> Iterator[Inside]:
    if form.parameter("__array__") in ("string", "bytestring"):
        yield Inside(steps, labels, None, list_at, "a string")
    elif form.is_record:
        yield from _members(form, steps, labels, list_at)
    elif form.is_option:
        yield from _optional(form, steps, labels, list_at)
    elif form.is_regular:
        if form.size > MAX_ELEMENTS:
            yield Inside(steps, labels, None, list_at, f"an array of {form.size:,} elements")
            return
        for number in range(form.size):
            yield from _walk(form.content, (*steps, number), (*labels, number), list_at)
    elif form.is_list and list_at is not None:
        yield Inside(steps, labels, None, list_at, f"doubly nested ({_shown(form)})")
    elif form.is_list:
        yield from _walk(form.content, steps, labels, len(steps))
    elif form.is_numpy:
        yield from _elements(form, steps, labels, list_at)
    else:
        yield Inside(steps, labels, None, list_at, f"of type {_shown(form)}")


def _members(form: Any, steps: Steps, labels: Steps, list_at: int | None) -> Iterator[Inside]:
    if (of_vector := components(form)) is not None:
        for way, name in of_vector.items():
            inner = form
            for member in way:
                inner = inner.content(member)
            yield from _walk(inner, (*steps, *way), (*labels, name), list_at)
        return
    for name, content in zip(form.fields, form.contents, strict=True):
        if name.startswith("@") or name in _OF_TOBJECT:
            continue
        label = () if name == "_M_elems" else (name,)  # what a std::array has
        yield from _walk(content, (*steps, name), (*labels, *label), list_at)


def _optional(form: Any, steps: Steps, labels: Steps, list_at: int | None) -> Iterator[Inside]:
    """A number that may be absent, which then is NaN."""
    content = form.content
    if content.is_numpy and not content.inner_shape and content.parameter("__array__") is None:
        dtype = "float32" if content.primitive in ("float16", "float32") else "float64"
        if np.dtype(content.primitive).kind in "biuf":
            yield Inside(steps, labels, dtype, list_at)
            return
    yield Inside(steps, labels, None, list_at, f"of type {_shown(form)}")


def _elements(form: Any, steps: Steps, labels: Steps, list_at: int | None) -> Iterator[Inside]:
    dtype = np.dtype(form.primitive)
    size = int(np.prod(form.inner_shape, dtype=np.int64))
    if dtype.kind not in "biuf" or dtype.itemsize > 8:
        yield Inside(steps, labels, None, list_at, f"of type {_shown(form)}")
    elif size > MAX_ELEMENTS:
        yield Inside(steps, labels, None, list_at, f"an array of {size:,} elements")
    else:
        name = "float32" if dtype.itemsize == 2 and dtype.kind == "f" else dtype.name
        for place in np.ndindex(*form.inner_shape):
            yield Inside((*steps, *place), (*labels, *place), name, list_at)


def _shown(form: Any) -> str:
    text = str(form.type).split("[parameters")[0]
    return text if len(text) <= 80 else f"{text[:77]}..."


def taken(
    layout: Any, steps: Sequence[str | int], dtype: str
) -> tuple[NDArray[Any], NDArray[np.int64] | None]:
    """The number at the end of the steps, for every entry or object, and the offsets of a list.

    Raises
    ------
    UnfitShapeError
        When something else stands there.
    """
    offsets: NDArray[np.int64] | None = None
    remaining: list[Any] = list(steps)
    while True:
        if layout.is_indexed and not layout.is_option:
            layout = layout.project()
        elif layout.is_record and remaining:
            layout = layout.content(remaining.pop(0))
        elif layout.is_regular and remaining:
            layout = layout[:, remaining.pop(0)]
        elif layout.is_list and offsets is None:
            packed = layout.to_ListOffsetArray64(True).to_packed()
            offsets = np.asarray(packed.offsets.data, dtype=np.int64)
            layout = packed.content
        elif layout.is_numpy:
            values = np.asarray(layout.data)
            break
        elif layout.is_option and layout.content.is_numpy:
            values = _filled(layout, dtype)
            break
        else:
            raise UnfitShapeError(f"of type {_shown(layout.form)}")
    for step in remaining:
        values = values[:, step]
    if values.ndim != 1:
        raise UnfitShapeError(f"of shape {values.shape[1:]}")
    return np.ascontiguousarray(values, dtype=dtype), offsets


def _filled(layout: Any, dtype: str) -> NDArray[Any]:
    option = layout.to_IndexedOptionArray64()
    index = np.asarray(option.index.data)
    values = np.full(len(index), np.nan, dtype=dtype)
    has = index >= 0
    values[has] = np.asarray(option.content.data)[index[has]]
    return values
