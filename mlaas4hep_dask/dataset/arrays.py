"""Lazy dask arrays of a whole data set."""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mlaas4hep_dask.dataset.blocks import BlockPlan
from mlaas4hep_dask.dataset.tasks import make_block
from mlaas4hep_dask.encode import Block
from mlaas4hep_dask.waiting import shared_key

if TYPE_CHECKING:
    import dask.array as da


class DaskArrays(NamedTuple):
    """Lazy arrays of a whole data set, one chunk per partition, with known shapes.

    ``x`` float32 (events, columns), normalised, 0 where missing; ``missing`` bool (events,
    columns), True for padding and NaN; ``y`` float32, labels of shape
    (events,) or targets of shape (events, targets); ``w`` float32 (events,); ``id`` uint64
    (events, 2), the file's id and the entry; ``split`` uint8 (events,), 0 for training, 1 for
    validation, 2 for test. With an image, ``x`` and ``missing`` have the shape
    (events, channels, ny, nx), and empty cells are missing.
    """

    x: da.Array
    missing: da.Array
    y: da.Array
    w: da.Array
    id: da.Array
    split: da.Array

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td><b>{name}</b></td><td>{array.shape}</td><td>{array.dtype}</td>"
            f"<td>{array.nbytes / 2**20:,.1f} MiB</td></tr>"
            for name, array in self._asdict().items()
        )
        heads = "".join(f"<th>{title}</th>" for title in ("array", "shape", "dtype", "computed"))
        return (
            f"<p><b>Lazy arrays</b> of {self.x.shape[0]:,} events in {self.x.numblocks[0]} chunks"
            f"</p><table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"
        )


def lazy_arrays(
    blocks: BlockPlan, *, row_shape: tuple[int, ...], y_tail: tuple[int, ...] = ()
) -> DaskArrays:
    """Arrays of all blocks, which make each block once however many of them are computed.

    Parameters
    ----------
    blocks : BlockPlan
        The blocks, with the number of events of each.
    row_shape : tuple of int
        Shape of one event in ``x``.
    y_tail : tuple of int
        Shape of one event in ``y``.
    """
    import dask.array as da  # half a second that a run without lazy arrays does not need
    from dask.highlevelgraph import HighLevelGraph, MaterializedLayer

    sizes = tuple(map(sum, blocks.split_counts))
    shape, targets = (tuple((size,) for size in tail) for tail in (row_shape, y_tail))
    name = f"block-{blocks.token}"
    shared = shared_key(blocks.token)
    layer: dict[Any, Any] = {shared: blocks.context}
    for number, partition in enumerate(blocks.partitions):
        layer[blocks.key(number)] = (make_block, partition, shared, blocks.split_counts[number])
    parts = {
        "x": (_dense, (sizes, *shape), np.float32),
        "missing": (_missing, (sizes, *shape), np.bool_),
        "y": (attrgetter("y"), (sizes, *targets), np.float32),
        "w": (attrgetter("w"), (sizes,), np.float32),
        "id": (attrgetter("id"), (sizes, (2,)), np.uint64),
        "split": (attrgetter("split"), (sizes,), np.uint8),
    }
    arrays = {}
    for part, (function, chunks, dtype) in parts.items():
        key = f"{part}-{blocks.token}"
        tail: tuple[int, ...] = (0,) * (len(chunks) - 1)
        tasks = {
            (key, number, *tail): (function, blocks.key(number)) for number in range(len(sizes))
        }
        graph = HighLevelGraph(
            {name: MaterializedLayer(layer), key: MaterializedLayer(tasks)},
            {name: set(), key: {name}},
        )
        arrays[part] = da.Array(graph, key, chunks, dtype=dtype)
    return DaskArrays(**arrays)


def _dense(block: Block) -> Any:
    return block.encoded.dense()


def _missing(block: Block) -> Any:
    return block.encoded.missing()
