"""Events of one entry range as flat NumPy arrays; the form in which all rooms exchange data."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numba
import numpy as np
from numpy.typing import NDArray

from mlaas4hep_dask.errors import DataError
from mlaas4hep_dask.events.lengths import require_offsets
from mlaas4hep_dask.events.runs import FEW

if TYPE_CHECKING:  # the server scores events without awkward, which takes 0.3 s to import
    import awkward as ak

Kind = Literal["flat", "jagged"]


@dataclass(frozen=True, slots=True)
class Branch:
    """What is known of a branch before its values are read.

    Parameters
    ----------
    name : str
        Name in the tree.
    kind : {"flat", "jagged"}
        One value or a list of values per event.
    dtype : str
        Numeric dtype of the values in native byte order, such as ``"float32"``.
    collection : str or None
        Collection that a jagged branch belongs to: the branches that share one multiplicity.
    unit : str or None
        Unit, when the file's title tells it.
    """

    name: str
    kind: Kind
    dtype: str
    collection: str | None = None
    unit: str | None = None

    def described(self) -> str:
        """Kind, dtype and collection in words."""
        where = "" if self.collection is None else f" (collection {self.collection!r})"
        return f"{self.kind} {self.dtype}{where}"

    def same_shape(self, other: Branch) -> bool:
        """True when both hold the same kind and dtype in the same collection."""
        return (self.kind, self.dtype, self.collection) == (
            other.kind,
            other.dtype,
            other.collection,
        )


@dataclass(frozen=True, slots=True)
class Events:
    """Events in columnar form, without copies of what a file's baskets hold.

    Parameters
    ----------
    num_events : int
        Number of events.
    branches : tuple of Branch
        What ``contents`` holds.
    contents : mapping of str to ndarray
        Values of each branch: shape (events,) for a flat branch, (objects,) for a jagged one. They
        may share one piece of memory, which lives as long as any of them: copy the few to keep.
    offsets : mapping of str to ndarray of int64, shape (events + 1,)
        Where each event's objects begin, for each collection; starts at 0.

    Raises
    ------
    DataError
        When an array has another length than the others say.
    """

    num_events: int
    branches: tuple[Branch, ...]
    contents: Mapping[str, NDArray[Any]]
    offsets: Mapping[str, NDArray[np.int64]]

    def __post_init__(self) -> None:
        self._require_lengths()

    def _require_lengths(self) -> None:
        """Takes 10 microseconds for 74 branches, whatever the number of events."""
        sizes: dict[str | None, tuple[int, ...]] = {None: (self.num_events,)}
        for name, starts in self.offsets.items():
            if starts.shape != (self.num_events + 1,) or starts[0] != 0:
                require_offsets(f"collection {name!r}", starts, self.num_events)
            sizes[name] = (int(starts[-1]),)
        for branch in self.branches:
            values = self.contents.get(branch.name)
            expected = sizes.get(branch.collection)
            if values is None or expected is None or values.shape != expected:
                shape = "absent" if values is None else f"of shape {values.shape}"
                where = "" if expected is not None else f" without offsets of {branch.collection!r}"
                raise DataError(
                    f"branch {branch.name!r}: values {shape}{where} in {self.num_events} events; "
                    f"expected {branch.described()} of shape {expected}",
                    branch=branch.name,
                )

    def checked(self) -> Events:
        """The same events, once their arrays are as long as each other says.

        Whoever gives arrays to compiled kernels asks, for kernels do not look.

        Raises
        ------
        DataError
            When an array has another length, or offsets become less; names the branch or the
            collection.
        """
        self._require_lengths()
        for name, starts in self.offsets.items():
            require_offsets(f"collection {name!r}", starts, self.num_events)
        return self

    def __len__(self) -> int:
        return self.num_events

    def __sizeof__(self) -> int:
        arrays = (*self.contents.values(), *self.offsets.values())
        return object.__sizeof__(self) + sum(array.nbytes for array in arrays)

    def to_awkward(self) -> ak.Array:
        """Record array of the same events, sharing memory with this object."""
        import awkward as ak

        fields: dict[str, Any] = {}
        for branch in self.branches:
            content = ak.contents.NumpyArray(self.contents[branch.name])
            if branch.collection is None:
                fields[branch.name] = content
            else:
                offsets = ak.index.Index64(self.offsets[branch.collection])
                fields[branch.name] = ak.contents.ListOffsetArray(offsets, content)
        record = ak.contents.RecordArray(
            list(fields.values()), list(fields), length=self.num_events
        )
        return ak.Array(record)

    @classmethod
    def from_awkward(cls, array: ak.Array) -> Events:
        """Events of a record array with flat and singly jagged numeric fields.

        Jagged fields whose names share the part before the first underscore and whose
        multiplicities are equal form one collection; any other is a collection of its own.

        Raises
        ------
        DataError
            When a field is neither flat nor singly jagged, or not numeric.
        """
        import awkward as ak

        branches: list[Branch] = []
        contents: dict[str, NDArray[Any]] = {}
        offsets: dict[str, NDArray[np.int64]] = {}
        for name in ak.fields(array):
            layout = ak.to_packed(ak.materialize(array[name]), highlevel=False)
            if layout.is_list and layout.parameter("__array__") is None:  # not a string
                layout = layout.to_ListOffsetArray64(True)
                starts = np.asarray(layout.offsets.data, dtype=np.int64)
                values = _numbers(layout.content, name)
                collection = name.split("_", 1)[0]
                if not np.array_equal(offsets.setdefault(collection, starts), starts):
                    # ``Jet`` beside ``Jet_pt`` may find its own name taken.
                    collection = f"{name}_" if name in offsets else name
                    offsets[collection] = starts
                branches.append(Branch(name, "jagged", values.dtype.name, collection))
            else:
                values = _numbers(layout, name)
                branches.append(Branch(name, "flat", values.dtype.name))
            contents[name] = values
        return cls(len(array), tuple(branches), contents, offsets)


def _numbers(layout: Any, name: str) -> NDArray[Any]:
    if not layout.is_numpy or layout.purelist_depth != 1 or layout.dtype.kind not in "biuf":
        raise DataError(
            f"branch {name!r} holds {layout.form.type}, not numbers or singly jagged numbers",
            branch=name,
        )
    return np.asarray(layout.data)


def concatenate(parts: Sequence[Events]) -> Events:
    """The events of all parts, in order; the parts hold the same branches."""
    if len(parts) == 1:
        return parts[0]
    first = parts[0]
    contents = {
        branch.name: np.concatenate([part.contents[branch.name] for part in parts])
        for branch in first.branches
    }
    offsets = {}
    for collection in first.offsets:
        multiplicities = np.concatenate([np.diff(part.offsets[collection]) for part in parts])
        offsets[collection] = offsets_of(multiplicities)
    return Events(sum(map(len, parts)), first.branches, contents, offsets)


def between(events: Events, start: int, stop: int) -> Events:
    """The events [start, stop), without a copy of their values."""
    contents = {}
    for branch in events.branches:
        first, last = start, stop
        if branch.collection is not None:
            first, last = events.offsets[branch.collection][[start, stop]].tolist()
        contents[branch.name] = events.contents[branch.name][first:last]
    offsets = {
        name: starts[start : stop + 1] - starts[start] for name, starts in events.offsets.items()
    }
    return Events(stop - start, events.branches, contents, offsets)


def offsets_of(multiplicities: NDArray[Any]) -> NDArray[np.int64]:
    """Offsets, shape (events + 1,), of the given multiplicities, shape (events,)."""
    if len(multiplicities) <= FEW:
        offsets = np.zeros(len(multiplicities) + 1, dtype=np.int64)
        np.cumsum(multiplicities, out=offsets[1:])
        return offsets
    # Much faster than NumPy, most of all for other integers than int64. A copy is of one kind, for
    # which numba compiles one kernel.
    many: NDArray[np.int64] = _offsets_of(np.array(multiplicities, dtype=np.int64))
    return many


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _offsets_of(multiplicities: NDArray[np.int64]) -> NDArray[np.int64]:
    """The cumulative sum, from 0."""
    offsets = np.empty(multiplicities.size + 1, dtype=np.int64)
    offsets[0] = total = 0
    for event in range(multiplicities.size):
        total += multiplicities[event]
        offsets[event + 1] = total
    return offsets


def unit_in(title: str) -> str | None:
    """The unit in square brackets at the end of a branch title, such as ``pt [GeV]``."""
    match = re.search(r"\[\s*([A-Za-z%][A-Za-z0-9/^*.\s-]*)\]\s*$", title)
    return match.group(1).strip() if match else None
