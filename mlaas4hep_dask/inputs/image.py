"""The inputs of a data set of images: the branches that its images show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from mlaas4hep_dask.config import Config, Image, Selection
from mlaas4hep_dask.config.image import Axis
from mlaas4hep_dask.encode.image import CELLS, image_branches
from mlaas4hep_dask.errors import ConfigError, EncodeError
from mlaas4hep_dask.events import Branch


def with_image_inputs(
    config: Config, selection: Selection, branches: Mapping[str, Branch]
) -> Selection:
    """The selection, with no more inputs than the image shows.

    Parameters
    ----------
    config : Config
        Perhaps with an image.
    selection : Selection
        What ``branches`` selects.
    branches : mapping of str to Branch
        All branches of numbers.

    Raises
    ------
    ConfigError
        When a branch of the image does not exist, is excluded, or is not of the kind that is
        needed; names the line.
    """
    if config.image is None:
        return selection
    inputs = {name: branches[name] for name in selection.inputs}
    try:
        shown = image_branches(config.image.model_dump(), branches)
    except EncodeError as error:
        raise _error(config, str(error.option), error.message) from error
    hidden = [name for name in shown if name not in inputs]
    if hidden:
        text = f"image: branch {hidden[0]!r} is shown, but branches does not select it"
        raise _error(config, "image", text)
    unused = {name: "the image does not show it" for name in inputs if name not in shown}
    left_out = dict(sorted({**selection.left_out, **unused}.items()))
    return replace(selection, inputs=sorted(shown), left_out=left_out)


def _error(config: Config, key: str, text: str) -> ConfigError:
    return ConfigError(f"{config.where(key)}: {text}", line=config.line_of(key), key=key)


def likely_shape(image: Image) -> tuple[int, int, int]:
    """Shape of the images as far as it is known before the specs; else `CELLS` cells per axis."""

    def num_cells(axis: Axis) -> int:
        if axis.size is not None and axis.range is not None:
            return max(1, round((axis.range[1] - axis.range[0]) / axis.size))
        return axis.cells or CELLS

    width = sum(num_cells(image.axes[x]) for x, _ in image.planes)
    height = num_cells(image.axes[image.planes[0][1]])
    return len(image.channels) + len(image.flat), height, width
