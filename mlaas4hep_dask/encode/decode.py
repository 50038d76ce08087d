"""Decode: dense rows and their missing mask back to jagged events."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mlaas4hep_dask.encode.encoding import Encoding
from mlaas4hep_dask.encode.precision import require_exact
from mlaas4hep_dask.encode.scaling import Scaling
from mlaas4hep_dask.errors import EncodeError
from mlaas4hep_dask.events import Branch, Events
from mlaas4hep_dask.events.events import offsets_of

if TYPE_CHECKING:  # the server encodes and never decodes
    import awkward as ak


def decode(
    x: NDArray[np.float32],
    missing: NDArray[np.bool_],
    encoding: Encoding,
    *,
    multiplicities: NDArray[np.int64] | None = None,
) -> ak.Array:
    """Events that were encoded as ``x`` and ``missing``.

    Parameters
    ----------
    x : ndarray of float32, shape (events, columns)
        Normalised rows; an autoencoder's output will do.
    missing : ndarray of bool, shape (events, columns)
        True where the value is padding or NaN.
    encoding : Encoding
        The encoding that made them.
    multiplicities : ndarray of int64, shape (collections, events), optional
        Number of objects, as `Encoded.multiplicities` gives it. By default an event has the
        objects up to the last one with a value that is not missing; that differs only for
        events whose last objects are missing in every branch of the collection.

    Returns
    -------
    awkward.Array
        One record per event. Values have float32 precision relative to the branch's range;
        integers and booleans come back as they were, in their own dtype, unless some are
        missing. Placeholders do too, where nothing else of a branch was missing. Numbers of an
        autoencoder's output come back rounded.
        Objects that encoding sorted stay in their new order, and those cut off are lost.

    Raises
    ------
    EncodeError
        When the shapes do not fit the layout, or a branch has whole numbers of more bits than
        rows hold.
    """
    return decode_events(x, missing, encoding, multiplicities=multiplicities).to_awkward()


def decode_events(
    x: NDArray[np.float32],
    missing: NDArray[np.bool_],
    encoding: Encoding,
    *,
    multiplicities: NDArray[np.int64] | None = None,
) -> Events:
    """The events that `decode` gives, in the form in which files are written.

    Parameters and errors are those of `decode`.
    """
    require_exact(encoding)
    layout = encoding.layout
    if x.shape != missing.shape or x.ndim != 2 or x.shape[1] != layout.num_columns:
        raise EncodeError(
            f"x has shape {x.shape} and missing {missing.shape}; expected both to be "
            f"(events, {layout.num_columns})"
        )
    num_events = len(x)
    if multiplicities is None:
        multiplicities = _multiplicities(missing, encoding)
    _require_multiplicities(multiplicities, num_events, encoding)
    branches = []
    contents: dict[str, NDArray[Any]] = {}
    scalings = dict(zip(layout.branches, encoding.scalings, strict=True))
    for branch in encoding.branches[: len(layout.flat)]:
        column = layout.flat.index(branch.name)
        values = _restore(x[:, column], missing[:, column], scalings[branch.name], branch)
        branches.append(replace(branch, dtype=values.dtype.name))
        contents[branch.name] = values
    for index, jagged in enumerate(layout.jagged):
        branch = encoding.branches[len(layout.flat) + index]
        first = int(layout.first_columns[index])
        block = slice(first, first + jagged.width)
        num_objects = multiplicities[layout.collection_rows[index]]
        exists = np.arange(jagged.width) < num_objects[:, None]  # (events, width)
        values = _restore(
            x[:, block][exists], missing[:, block][exists], scalings[branch.name], branch
        )
        branches.append(replace(branch, dtype=values.dtype.name))
        contents[branch.name] = values
    offsets = {name: offsets_of(multiplicities[row]) for row, name in enumerate(layout.collections)}
    return Events(num_events, tuple(branches), contents, offsets)


def _require_multiplicities(
    multiplicities: NDArray[np.int64], num_events: int, encoding: Encoding
) -> None:
    layout = encoding.layout
    expected = (len(layout.collections), num_events)
    if multiplicities.shape != expected:
        raise EncodeError(f"multiplicities of shape {multiplicities.shape}, expected {expected}")
    for name, num_objects in zip(layout.collections, multiplicities, strict=True):
        low, high, width = (
            num_objects.min(initial=0),
            num_objects.max(initial=0),
            layout.collection_widths[name],
        )
        if not 0 <= low <= high <= width:
            raise EncodeError(
                f"multiplicities from {low} to {high} of collection {name!r} of width {width}"
            )


def _multiplicities(missing: NDArray[np.bool_], encoding: Encoding) -> NDArray[np.int64]:
    layout = encoding.layout
    num_objects = np.zeros((len(layout.collections), len(missing)), dtype=np.int64)
    for index, jagged in enumerate(layout.jagged):
        first = int(layout.first_columns[index])
        present = ~missing[:, first : first + jagged.width]
        last = np.where(present, np.arange(1, jagged.width + 1), 0).max(axis=1, initial=0)
        row = layout.collection_rows[index]
        num_objects[row] = np.maximum(num_objects[row], last)
    return num_objects


def _restore(
    x: NDArray[np.float32], missing: NDArray[np.bool_], scaling: Scaling, branch: Branch
) -> NDArray[Any]:
    values = scaling.restore(x.astype(np.float64))
    dtype = np.dtype(branch.dtype)
    values[missing] = scaling.filler
    if dtype.kind == "f":
        return values.astype(dtype)
    if missing.any() and np.isnan(scaling.filler):
        return values
    if dtype.kind == "b":
        return values >= 0.5
    limits = np.iinfo(dtype)
    restored = np.full(values.shape, limits.max, dtype)
    # As float64 the largest 64-bit integer is too large for its own type.
    below = np.rint(values) < float(limits.max)
    restored[below] = np.maximum(np.rint(values[below]), limits.min).astype(dtype)
    return restored
