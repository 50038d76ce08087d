"""The inputs of a data set of images: the branches that its images show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from mlaas4hep_dask.config import Image, Places, Selection
from mlaas4hep_dask.config.image import Axis
from mlaas4hep_dask.encode.image import CELLS, image_branches
from mlaas4hep_dask.errors import EncodeError
from mlaas4hep_dask.events import Branch


def with_image_inputs(
    image: Image | None, selection: Selection, branches: Mapping[str, Branch], places: Places
) -> Selection:
    """The selection, with no more inputs than the image shows.

    Parameters
    ----------
    image : Image or None
        What events become; None for rows.
    selection : Selection
        What ``branches`` selects.
    branches : mapping of str to Branch
        All branches of numbers.
    places : Places
        Where keys were written, for errors.

    Raises
    ------
    ConfigError
        When a branch of the image does not exist, is excluded, or is not of the kind that is
        needed; names the line.
    """
    if image is None:
        return selection
    inputs = {name: branches[name] for name in selection.inputs}
    try:
        visible = image_branches(image.model_dump(), branches)
    except EncodeError as error:
        raise places.error(str(error.option), error.message) from error
    hidden = [name for name in visible if name not in inputs]
    if hidden:
        text = f"image: branch {hidden[0]!r} is shown, but branches does not select it"
        raise places.error("image", text)
    unused = {name: "the image does not show it" for name in inputs if name not in visible}
    left_out = dict(sorted({**selection.left_out, **unused}.items()))
    return replace(selection, inputs=sorted(visible), left_out=left_out)


def likely_shape(image: Image) -> tuple[int, int, int]:
    """Shape of the images as far as it is known before the specs; else `CELLS` cells per axis."""

    def num_cells(axis: Axis) -> int:
        if axis.size is not None and axis.range is not None:
            return max(1, round((axis.range[1] - axis.range[0]) / axis.size))
        return axis.cells or CELLS

    width = sum(num_cells(image.axes[x]) for x, _ in image.planes)
    height = num_cells(image.axes[image.planes[0][1]])
    return len(image.channels) + len(image.flat), height, width
