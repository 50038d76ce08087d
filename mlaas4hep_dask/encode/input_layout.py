"""The layout as a network is told of it: the columns, collection and kind of every branch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mlaas4hep_dask.encode.encoding import Encoding
from mlaas4hep_dask.encode.normalise import normalised
from mlaas4hep_dask.encode.scaling import Scaling
from mlaas4hep_dask.errors import EncodeError, did_you_mean
from mlaas4hep_dask.events import Branch
from mlaas4hep_dask.specs import BranchSpecs, Specs

MOST_VALUES = 64  # of a branch that is a category
NEAR = 0.25  # of a whole number, what is still that number


@dataclass(frozen=True)
class InputBranch:
    """What a network is told of one branch.

    Parameters
    ----------
    name : str
        Name of the branch.
    collection : str or None
        Collection of a jagged branch; None of a flat one.
    first : int
        Its first column.
    width : int
        Number of its columns, which lie side by side: one per object, or one of a flat branch.
    is_whole : bool
        All its values are whole numbers.
    values : tuple of int
        Of a branch of whole numbers with few different values: these, ascending; else empty. A
        value that is encoded as missing is none of them.
    bounds : tuple of (float, float)
        By value: between which numbers a column lies, ends included, where it holds that value.
    alike : tuple of int
        Whole numbers that are no ``values``, since a column in single precision may not tell them
        from others, ascending.
    """

    name: str
    collection: str | None
    first: int
    width: int
    is_whole: bool = False
    values: tuple[int, ...] = ()
    bounds: tuple[tuple[float, float], ...] = ()
    alike: tuple[int, ...] = ()

    @property
    def columns(self) -> range:
        """Its columns; that of object ``i`` is ``columns[i]``."""
        return range(self.first, self.first + self.width)

    @property
    def is_flag(self) -> bool:
        """True when its values are 0 and 1, or one of these."""
        return bool(self.values) and {*self.values, *self.alike} <= {0, 1}

    @property
    def num_categories(self) -> int:
        """Rows of an embedding of its values: 0 stands for missing and unknown ones; 0 if none."""
        return len(self.values) + 1 if self.values else 0


@dataclass(frozen=True)
class InputCollection:
    """The branches of a collection, in the order of their columns, and how many objects it has."""

    name: str
    width: int
    branches: tuple[InputBranch, ...]


@dataclass(frozen=True)
class InputLayout:
    """Which column of a row holds what: flat branches, then each jagged branch with its objects.

    Both are sorted by name. The columns of a jagged branch lie side by side, one per object:
    ``Jet_pt[0]``, ``Jet_pt[1]`` and so on, then those of the next branch.

    Parameters
    ----------
    branches : tuple of InputBranch
        All branches, in the order of their columns.
    """

    branches: tuple[InputBranch, ...]

    @classmethod
    def of(cls, branches: Iterable[tuple[Branch, int]]) -> InputLayout:
        """The layout of branches in their order, each with its number of columns."""
        first, placed = 0, []
        for branch, width in branches:
            is_whole = np.dtype(branch.dtype).kind in "biu"
            placed.append(InputBranch(branch.name, branch.collection, first, width, is_whole))
            first += width
        return cls(tuple(placed))

    @property
    def num_columns(self) -> int:
        """Length of a row."""
        return sum(branch.width for branch in self.branches)

    @cached_property
    def flat(self) -> tuple[InputBranch, ...]:
        """The flat branches: the first columns of a row."""
        return tuple(branch for branch in self.branches if branch.collection is None)

    @cached_property
    def collections(self) -> tuple[InputCollection, ...]:
        """The collections of which objects are kept, sorted by name."""
        names = {branch.collection for branch in self.branches if branch.width} - {None}
        found = []
        for name in sorted(filter(None, names)):
            branches = tuple(branch for branch in self.branches if branch.collection == name)
            found.append(InputCollection(name, branches[0].width, branches))
        return tuple(found)

    @property
    def flags(self) -> tuple[int, ...]:
        """The columns of branches whose values are 0 and 1."""
        return tuple(i for branch in self.branches if branch.is_flag for i in branch.columns)

    def columns(self) -> list[str]:
        """Names of all columns, such as ``MET_pt`` and ``Jet_pt[3]``."""
        return [
            branch.name if branch.collection is None else f"{branch.name}[{i}]"
            for branch in self.branches
            for i in range(branch.width)
        ]

    def branch(self, name: str) -> InputBranch:
        """The branch of a name.

        Raises
        ------
        EncodeError
            When there is none; names the nearest.
        """
        found: Mapping[str, InputBranch] = {branch.name: branch for branch in self.branches}
        if name not in found:
            near = did_you_mean(name, found)
            raise EncodeError(f"no branch {name!r} is an input{near}", branch=name)
        return found[name]

    def at(self, column: int) -> tuple[InputBranch, int | None]:
        """The branch of a column, and of a jagged branch the place of its object, from 0.

        Raises
        ------
        IndexError
            When there is no such column.
        """
        for branch in self.branches:
            if column in branch.columns:
                return branch, None if branch.collection is None else column - branch.first
        raise IndexError(f"column {column} of {self.num_columns}")


def input_layout(encoding: Encoding, specs: Specs) -> InputLayout:
    """The layout of the rows of an encoding, with what specs tell of the values.

    Parameters
    ----------
    encoding : Encoding
        How events become rows.
    specs : Specs
        Those that the encoding follows from.
    """
    widths = [1] * len(encoding.layout.flat) + encoding.layout.widths.tolist()
    placed = InputLayout.of(zip(encoding.branches, widths, strict=True))
    told = [
        _with_values(branch, specs.branches[branch.name], scaling)
        for branch, scaling in zip(placed.branches, encoding.scalings, strict=True)
    ]
    return InputLayout(tuple(told))


def _with_values(branch: InputBranch, specs: BranchSpecs, scaling: Scaling) -> InputBranch:
    drawn = np.unique(specs.finite_drawn())
    known = np.append(drawn, [each for each in (specs.min, specs.max) if each is not None])
    is_whole = branch.is_whole or bool(drawn.size and np.array_equal(known, np.rint(known)))
    values = _whole_values(specs, drawn) if is_whole else drawn[:0]
    if scaling.absent is not None:
        values = values[values != scaling.absent]
    scaling = replace(scaling, clip=False, absent=None)
    lower, upper = (normalised(values + way * NEAR, scaling)[0] for way in (-1, 1))
    has_code = np.isfinite(lower) & np.isfinite(upper)  # not so of 0, where the logarithm is taken
    bounds, values = np.stack([lower, upper], axis=1)[has_code], values[has_code]
    bounds.sort(axis=1)
    are_alike = _touch(bounds)
    return replace(
        branch,
        is_whole=is_whole,
        values=tuple(int(value) for value in values[~are_alike]),
        bounds=tuple((low, high) for low, high in bounds[~are_alike].tolist()),
        alike=tuple(int(value) for value in values[are_alike]),
    )


def _touch(bounds: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which intervals have a number in common with another one."""
    order = np.argsort(bounds[:, 0])
    low, high = bounds[order].T
    touches = np.zeros(len(bounds), bool)
    touches[order[:-1]] |= high[:-1] >= low[1:]
    touches[order[1:]] |= np.maximum.accumulate(high)[:-1] >= low[1:]
    return touches


def _whole_values(specs: BranchSpecs, drawn: NDArray[np.float64]) -> NDArray[np.float64]:
    """The values of a branch of whole numbers; none if they are many.

    Where they are close together it is all from the smallest to the largest: of rare values
    perhaps none was drawn.
    """
    if specs.min is not None and specs.max is not None and specs.max - specs.min < MOST_VALUES:
        return np.arange(specs.min, specs.max + 1)
    return drawn if drawn.size <= MOST_VALUES else drawn[:0]
