"""Image: which cell of which channel shows an object of an event."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlaas4hep_dask.encode.image_kernels import COUNT, MAX, SUM
from mlaas4hep_dask.errors import EncodeError, did_you_mean, either
from mlaas4hep_dask.events import Branch
from mlaas4hep_dask.formulas import COMBINES
from mlaas4hep_dask.specs import Specs

CODES = dict(zip(COMBINES, (SUM, MAX, COUNT), strict=True))  # of the kernels
MAX_NUMBERS = 2**26  # in one image: 256 MiB
CELLS = 32  # of an axis that says nothing else


@dataclass(frozen=True)
class Axis:
    """One direction of a plane, in equal cells.

    Parameters
    ----------
    name : str
        Name of the axis.
    branches : mapping of str to str
        By collection: the branch with the coordinate.
    low, high : float
        The ends, in the branch's unit.
    num_cells : int
        Number of cells.
    is_periodic : bool
        The two ends are one point.
    """

    name: str
    branches: Mapping[str, str]
    low: float
    high: float
    num_cells: int
    is_periodic: bool

    @cached_property
    def edges(self) -> NDArray[np.float64]:
        """Edges of the cells, shape (cells + 1,)."""
        return np.linspace(self.low, self.high, self.num_cells + 1)


@dataclass(frozen=True, slots=True)
class Channel:
    """One layer of an image: objects of a collection, by value or number.

    Parameters
    ----------
    collection : str
        Whose objects it shows.
    value : str or None
        The branch that is shown; None with ``count``.
    combine : {"sum", "max", "count"}
        What stands in a cell with several objects.
    """

    collection: str
    value: str | None
    combine: str

    @property
    def name(self) -> str:
        """Such as ``sum(Jet_pt)`` or ``count(Jet)``."""
        return f"{self.combine}({self.value or self.collection})"


@dataclass(frozen=True)
class Image:
    """Planes side by side, in several channels.

    A row of cells has one y, with x ascending; the rows follow each other with y ascending. The
    planes stand side by side along x in the order given, as the XY, YZ and XZ planes of Kuznetsov
    (MLaaS4HEP, 2018) do.

    Parameters
    ----------
    axes : mapping of str to Axis
        By name.
    planes : tuple of tuple of str
        The names of the x and the y axis of each plane; y axes have equal numbers of cells.
    channels : tuple of Channel
        What the first channels show.
    flat : tuple of str
        Flat branches; each fills a channel of its own with its value.
    """

    axes: Mapping[str, Axis]
    planes: tuple[tuple[str, str], ...]
    channels: tuple[Channel, ...]
    flat: tuple[str, ...] = ()

    @classmethod
    def from_specs(cls, options: Mapping[str, Any], specs: Specs) -> Image:
        """Image of the section ``image`` of dataset.yaml, with ranges from the specs.

        Raises
        ------
        EncodeError
            When the options do not fit the branches, an axis has no range or planes no common
            height; the fact ``option`` names the key.
        """
        try:
            branches = {name: entry.branch for name, entry in specs.branches.items()}
            channels = _channels(options, branches)
            axes = {
                name: _with_range(name, of_axis, options["axes"][name], specs)
                for name, of_axis in _axis_branches(options, branches, channels).items()
            }
            planes = tuple((str(x), str(y)) for x, y in options["planes"])
            image = cls(axes, planes, channels, _flat(options, branches))
            image._require_one_height()
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise EncodeError(
                f"the options of an image cannot be used ({error!r})", option="image"
            ) from error
        return image

    def _require_one_height(self) -> None:
        heights = {self.axes[y].num_cells for _, y in self.planes}
        if len(heights) != 1:
            sizes = ", ".join(f"{y} has {self.axes[y].num_cells}" for _, y in self.planes)
            raise EncodeError(
                f"planes side by side need y axes with one number of cells: {sizes}",
                option="image.planes",
            )
        if math.prod(self.shape) > MAX_NUMBERS:
            raise EncodeError(
                f"an image of shape {self.shape} has more than {MAX_NUMBERS:,} numbers",
                option="image.axes",
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, cells along y and cells along x."""
        width = sum(self.axes[x].num_cells for x, _ in self.planes)
        height = self.axes[self.planes[0][1]].num_cells
        return len(self.channels) + len(self.flat), height, width

    @property
    def first_cells(self) -> tuple[int, ...]:
        """Where each plane begins along x."""
        widths = [self.axes[x].num_cells for x, _ in self.planes]
        return tuple(sum(widths[:place]) for place in range(len(widths)))

    @property
    def channel_names(self) -> list[str]:
        """Names of all channels, such as ``sum(Jet_pt)``, ``count(Jet)`` and ``MET_pt``."""
        return [*(channel.name for channel in self.channels), *self.flat]

    @property
    def collections(self) -> tuple[str, ...]:
        """The collections that are shown, sorted."""
        return tuple(sorted({channel.collection for channel in self.channels}))

    @property
    def branches(self) -> tuple[str, ...]:
        """Names of all branches that are needed, sorted."""
        names = {name for axis in self.axes.values() for name in axis.branches.values()}
        names |= {channel.value for channel in self.channels if channel.value is not None}
        return tuple(sorted(names | set(self.flat)))

    def plane_name(self, collection: str, plane: tuple[str, str]) -> str:
        """How counts name the objects of a collection in a plane, such as ``Jet (eta, phi)``."""
        return f"{collection} ({plane[0]}, {plane[1]})"

    def with_cells(self, factor: float) -> Image:
        """The same image with so many times the cells along each axis, at least one."""
        axes = {
            name: replace(axis, num_cells=max(1, round(axis.num_cells * factor)))
            for name, axis in self.axes.items()
        }
        return replace(self, axes=axes)


def image_branches(options: Mapping[str, Any], branches: Mapping[str, Branch]) -> tuple[str, ...]:
    """Names of the branches that an image needs, once they are found to fit together.

    Parameters
    ----------
    options : mapping
        The section ``image`` of dataset.yaml.
    branches : mapping of str to Branch
        What there is.

    Raises
    ------
    EncodeError
        When a branch does not exist, is flat where it must be jagged, or belongs to another
        collection; the fact ``option`` names the key.
    """
    channels = _channels(options, branches)
    axes = _axis_branches(options, branches, channels)
    names = {name for axis in axes.values() for name in axis.values()}
    names |= {channel.value for channel in channels if channel.value is not None}
    return tuple(sorted(names | set(_flat(options, branches))))


def _channels(options: Mapping[str, Any], branches: Mapping[str, Branch]) -> tuple[Channel, ...]:
    collections = {branch.collection for branch in branches.values()} - {None}
    channels = []
    for place, channel in enumerate(options["channels"]):
        key = f"image.channels.{place}"
        combine, value = channel.get("combine", "sum"), channel.get("value")
        if combine not in COMBINES:
            raise _error(f"{key}.combine", f"expected {either(COMBINES)}, found {combine!r}")
        collection = channel.get("collection")
        if value is not None:
            collection = _collection_of(value, branches, f"{key}.value")
        elif collection not in collections:
            near = did_you_mean(str(collection), filter(None, collections))
            raise _error(f"{key}.collection", f"there is no collection {collection!r}{near}")
        channels.append(Channel(str(collection), value, combine))
    return tuple(channels)


def _axis_branches(
    options: Mapping[str, Any], branches: Mapping[str, Branch], channels: tuple[Channel, ...]
) -> dict[str, dict[str, str]]:
    """By axis and collection: the branch with the coordinate."""
    collections = {channel.collection for channel in channels}
    axes = {}
    for axis, axis_options in options["axes"].items():
        key = f"image.axes.{axis}"
        by_collection: dict[str, str] = {}
        for name in axis_options.get("branches") or [axis]:
            collection = _collection_of(name, branches, key)
            if collection not in collections:
                raise _error(key, f"no channel shows the collection {collection!r} of {name!r}")
            if collection in by_collection:
                first = by_collection[collection]
                text = f"branches {first!r} and {name!r} are both of {collection!r}"
                raise _error(key, text)
            by_collection[collection] = name
        for collection in sorted(collections - by_collection.keys()):
            inside = [name for name, branch in branches.items() if branch.collection == collection]
            near = did_you_mean(str(axis), inside) or f"; it has {', '.join(sorted(inside))}"
            text = f"no branch of the collection {collection!r}, which a channel shows{near}"
            raise _error(key, text)
        axes[str(axis)] = by_collection
    return axes


def _flat(options: Mapping[str, Any], branches: Mapping[str, Branch]) -> tuple[str, ...]:
    for place, name in enumerate(options.get("flat", ())):
        key = f"image.flat.{place}"
        if name not in branches:
            raise _error(key, f"branch {name!r} is not in the tree{did_you_mean(name, branches)}")
        if branches[name].collection is not None:
            raise _error(key, f"branch {name!r} is jagged; expected one value per event")
    return tuple(options.get("flat", ()))


def _collection_of(name: str, branches: Mapping[str, Branch], key: str) -> str:
    if name not in branches:
        raise _error(key, f"branch {name!r} is not in the tree{did_you_mean(name, branches)}")
    collection = branches[name].collection
    if collection is None:
        raise _error(key, f"branch {name!r} is flat; name it under image.flat for a channel")
    return collection


def _with_range(
    name: str, branches: Mapping[str, str], options: Mapping[str, Any], specs: Specs
) -> Axis:
    is_periodic = bool(options.get("periodic"))
    ends = options.get("range")
    if ends is not None:
        low, high = map(float, ends)
    elif is_periodic:
        low, high = -math.pi, math.pi
    else:
        entries = [specs.branches[branch] for branch in branches.values()]
        lows = [entry.min for entry in entries if entry.min is not None]
        highs = [entry.max for entry in entries if entry.max is not None]
        low, high = (float(min(lows)), float(max(highs))) if lows and highs else (0.0, 0.0)
    if not (low < high and math.isfinite(high - low)):
        raise _error(
            f"image.axes.{name}", f"goes from {low:.6g} to {high:.6g}; give a range of its own"
        )
    size = options.get("size")
    if size is not None and not (high - low) / size <= MAX_NUMBERS:
        raise _error(
            f"image.axes.{name}.size",
            f"cells of {size:.6g} from {low:.6g} to {high:.6g} are more than {MAX_NUMBERS:,}",
        )
    if size is None:
        num_cells = int(options.get("cells") or CELLS)
    elif is_periodic:
        num_cells = max(1, round((high - low) / size))
    else:
        num_cells = max(1, math.ceil((high - low) / size - 1e-9))
        high = low + num_cells * size
    return Axis(name, dict(branches), low, high, num_cells, is_periodic)


def _error(key: str, text: str) -> EncodeError:
    place = re.sub(r"\.([0-9]+)(?=\.|$)", r"[\1]", key)
    return EncodeError(f"{place}: {text}", option=key)
