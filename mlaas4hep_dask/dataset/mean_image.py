"""Mean images of each class over the first events of each sample, for the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlaas4hep_dask.dataset.distributions import groups_of, readable
from mlaas4hep_dask.dataset.granularity import Tried, added, suggestions
from mlaas4hep_dask.encode.encoded_images import EncodedImages, encode_images, granularity
from mlaas4hep_dask.encode.image import Axis, Image
from mlaas4hep_dask.inputs.context import Context
from mlaas4hep_dask.reader import Partition
from mlaas4hep_dask.specs import Specs

MOST_CELLS = 64  # along an axis of a figure; of finer images, several cells are drawn as one


@dataclass(frozen=True)
class ImageSums:
    """Weighted sums of the images of some events, by class, or by sample in a regression.

    Parameters
    ----------
    num_events : mapping of str to int
        Events of each class.
    weights : mapping of str to float
        Sums of their weights.
    planes : mapping of str to sequence of ndarray of float64, shape (channels, ny, nx)
        Of each class the sums in the cells of every plane, without the channels of flat branches.
        Of planes with more than `MOST_CELLS` along an axis, a cell is the mean of several.
    flat : mapping of str to ndarray of float64, shape (flat branches,)
        Of each class the sums of the values that fill a channel each.
    tried : mapping
        What `granularity` finds.
    """

    num_events: Mapping[str, int]
    weights: Mapping[str, float]
    planes: Mapping[str, Sequence[NDArray[np.float64]]]
    flat: Mapping[str, NDArray[np.float64]]
    tried: Tried

    def __add__(self, other: ImageSums) -> ImageSums:
        names = sorted({*self.num_events, *other.num_events})

        def both(key: str, name: str) -> list[Any]:
            return [getattr(part, key)[name] for part in (self, other) if name in part.num_events]

        return ImageSums(
            {name: sum(both("num_events", name)) for name in names},
            {name: sum(both("weights", name)) for name in names},
            {name: [sum(p) for p in zip(*both("planes", name), strict=True)] for name in names},
            {name: sum(both("flat", name)) for name in names},
            added([self.tried, other.tried]),
        )


NOTHING = ImageSums({}, {}, {}, {}, {})


def sum_images(partition: Partition, context: Context) -> ImageSums:
    """The sums of the images of one partition.

    Raises
    ------
    UnreadableFileError
        When it cannot be read, unless the context says to skip.
    """
    assert context.encoding is not None  # set by the data set once it has specs
    image = context.encoding.image
    assert image is not None  # the data set looks
    if (labelled := readable(partition, context, context.encoding)) is None:
        return NOTHING
    encoded = encode_images(labelled.events, context.encoding)
    weights = labelled.weights * context.supervision.factors[partition.sample]
    names, groups = groups_of(labelled, partition, context)
    events, sums, planes, flat = {}, {}, {}, {}
    for number, name in enumerate(names):
        of_group = np.where(groups == number, weights, 0.0)
        events[name] = int(np.count_nonzero(groups == number))
        sums[name] = float(of_group.sum())
        planes[name] = _planes(image, _weighted(encoded, of_group))
        flat[name] = of_group @ np.nan_to_num(encoded.flat.astype(np.float64))
    return ImageSums(events, sums, planes, flat, granularity(labelled.events, image))


def _weighted(encoded: EncodedImages, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """The sum of all images, each times its weight, without the channels of flat branches."""
    _, height, width = encoded.image.shape
    shape = len(encoded.image.channels), height, width
    values = encoded.values * np.repeat(weights, np.diff(encoded.offsets))
    sums = np.bincount(encoded.cells, weights=values, minlength=int(np.prod(shape)))
    return sums.astype(np.float64, copy=False).reshape(shape)  # (channels, ny, nx)


def _planes(image: Image, sums: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    planes = []
    for (x, y), first in zip(image.planes, image.first_cells, strict=True):
        part = sums[:, :, first : first + image.axes[x].num_cells]
        for place, name in ((2, x), (1, y)):
            starts = np.arange(0, image.axes[name].num_cells, merged(image.axes[name]))
            if len(starts) < part.shape[place]:
                sizes = np.diff(starts, append=part.shape[place])
                shape = [-1 if n == place else 1 for n in range(3)]
                part = np.add.reduceat(part, starts, axis=place) / sizes.reshape(shape)
        planes.append(part.copy())
    return planes


def merged(axis: Axis) -> int:
    """How many cells along an axis are drawn as one."""
    return -(-axis.num_cells // MOST_CELLS)


def images_json(sums: ImageSums, image: Image | None, specs: Specs) -> dict[str, Any]:
    """The mean images and what their cells mean, as JSON values for the report.

    A class whose weights do not sum to more than 0 has no mean. Without an image it is empty.
    """
    if image is None:
        return {}
    weighted = [name for name, weight in sums.weights.items() if weight > 0]
    means = {name: [p / sums.weights[name] for p in sums.planes[name]] for name in weighted}
    flat = {name: sums.flat[name] / sums.weights[name] for name in weighted}
    return {
        "num_events": dict(sums.num_events),
        "without_mean": [name for name in sums.weights if name not in weighted],
        "axes": [
            {
                "name": name,
                "branches": [_with_unit(branch, specs) for branch in axis.branches.values()],
                "low": axis.low,
                "high": axis.high,
                "num_cells": axis.num_cells,
                "merged": merged(axis),
                "is_periodic": axis.is_periodic,
            }
            for name, axis in image.axes.items()
        ],
        "channels": [
            {
                "name": channel.name,
                "planes": [
                    {
                        "x": _axis_json(image.axes[x], channel.collection, specs),
                        "y": _axis_json(image.axes[y], channel.collection, specs),
                        "means": {name: means[name][place][number].tolist() for name in weighted},
                    }
                    for place, (x, y) in enumerate(image.planes)
                ],
            }
            for number, channel in enumerate(image.channels)
        ],
        "flat": [
            {"name": branch, "means": {name: float(flat[name][place]) for name in weighted}}
            for place, branch in enumerate(image.flat)
        ],
        "granularity": [suggestion._asdict() for suggestion in suggestions(sums.tried)],
    }


def _axis_json(axis: Axis, collection: str, specs: Specs) -> dict[str, Any]:
    branch = axis.branches[collection]
    name = _with_unit(branch, specs)
    return {
        "name": name if branch == axis.name else f"{axis.name}: {name}",
        "low": axis.low,
        "high": axis.high,
        "num_cells": axis.num_cells / merged(axis),
    }


def _with_unit(branch: str, specs: Specs) -> str:
    unit = specs.branches[branch].branch.unit if branch in specs.branches else None
    return f"{branch} [{unit}]" if unit else branch
