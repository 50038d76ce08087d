"""Whether the cells of images are too coarse, from the first events of each sample."""

from __future__ import annotations

from collections.abc import Sequence

from mlaas4hep_dask.dataset.prepare import prepare
from mlaas4hep_dask.dataset.tasks import Context
from mlaas4hep_dask.encode.encoded_images import granularity, suggested_factor
from mlaas4hep_dask.reader import Partition

Tried = dict[str, dict[str, list[int]]]


def try_cells(partition: Partition, context: Context) -> Tried:
    """What `granularity` finds in the events of one partition."""
    assert context.encoding is not None  # set by the data set once it has specs
    assert context.encoding.image is not None  # the data set looks
    return granularity(prepare(partition, context.preparation).events, context.encoding.image)


def suggestions(parts: Sequence[Tried]) -> list[str]:
    """One sentence for each plane: how many objects share a cell, and what would change it."""
    total: Tried = {}
    for part in parts:
        for plane, tried in part.items():
            sums = total.setdefault(plane, {})
            for factor, (inside, shared) in tried.items():
                earlier = sums.get(factor, [0, 0])
                sums[factor] = [earlier[0] + inside, earlier[1] + shared]
    return [_sentence(plane, tried) for plane, tried in sorted(total.items())]


def _sentence(plane: str, tried: dict[str, list[int]]) -> str:
    inside, shared = tried["1"]
    factor = suggested_factor(tried)
    advice = "and no number of cells that was tried makes that less than 1 %"
    if factor is not None:
        advice = f"suggested, for less than 1 %: {factor:g} times the cells along each axis"
    share = shared / inside if inside else 0.0
    return f"image, {plane}: {share:.2%} of {inside:,} objects share a cell; {advice}"
