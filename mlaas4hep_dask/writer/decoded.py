"""Writes dense rows, such as an autoencoder's output, as the jagged events they stand for."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mlaas4hep_dask.encode import Encoding, decode_events
from mlaas4hep_dask.errors import EncodeError
from mlaas4hep_dask.events import Branch, Events
from mlaas4hep_dask.formats import RootFormat
from mlaas4hep_dask.writer.output import write_events
from mlaas4hep_dask.writer.root import counter_name

STEP = 20_000  # events decoded at once


def decoded_branches(encoding: Encoding, *, suffix: str = "") -> tuple[Branch, ...]:
    """What `decoded_events` gives: the branches of the encoding, whatever the values are.

    Parameters
    ----------
    encoding : Encoding
        The encoding of the rows.
    suffix : str
        Appended to the names of branches and collections.
    """
    names = {branch.name for branch in encoding.branches}
    counters = {
        counter_name(branch.collection, names)
        for branch in encoding.branches
        if branch.collection is not None
    }
    decoded = []
    for branch, dtype in zip(encoding.branches, _dtypes(encoding), strict=True):
        collection = None if branch.collection is None else f"{branch.collection}{suffix}"
        twin = replace(branch, name=f"{branch.name}{suffix}", collection=collection, dtype=dtype)
        if branch.name in counters:
            decoded.append(replace(twin, dtype=branch.dtype))
            twin = replace(twin, name=f"{branch.name}{suffix}_value")
        decoded.append(twin)
    return tuple(decoded)


def _dtypes(encoding: Encoding) -> list[str]:
    """By branch, the dtype in a file: a whole number without a logarithm is missing, thus NaN."""
    return [
        "float64"
        if scaling.function is not None
        and math.isfinite(scaling.function.above)
        and np.dtype(branch.dtype).kind != "f"
        else branch.dtype
        for branch, scaling in zip(encoding.branches, encoding.scalings, strict=True)
    ]


def decoded_events(
    x: NDArray[np.float32],
    missing: NDArray[np.bool_],
    encoding: Encoding,
    *,
    multiplicities: NDArray[np.int64] | None = None,
    suffix: str = "",
) -> Events:
    """The events that rows stand for, with the dtypes of the encoding's branches.

    Whole numbers and booleans that are encoded by their logarithm become float64, since one that
    has none is missing.

    A flat branch that counts a collection, such as ``nJet`` beside ``Jet_pt``, becomes the number
    of objects that the event has here; the row's own value of it is ``nJet_value``.

    Parameters
    ----------
    x, missing, encoding, multiplicities
        As for `decode`.
    suffix : str
        Appended to the names of branches and collections.

    Raises
    ------
    EncodeError
        When the shapes do not fit, or an integer or a boolean is not finite, or missing though
        none could be: a file has no NaN for them.
    """
    events = decode_events(x, missing, encoding, multiplicities=multiplicities)
    _require_numbers(x, missing, encoding, events)
    branches = decoded_branches(encoding, suffix=suffix)
    contents = {}
    offsets = {f"{name}{suffix}": ends for name, ends in events.offsets.items()}
    counted = {counter_name(name, events.contents): ends for name, ends in events.offsets.items()}
    for branch, dtype in zip(encoding.branches, _dtypes(encoding), strict=True):
        values = events.contents[branch.name].astype(dtype, copy=False)
        name = f"{branch.name}{suffix}"
        if branch.collection is None and branch.name in counted:
            contents[f"{name}_value"] = values
            values = np.diff(counted[branch.name]).astype(branch.dtype)
        contents[name] = values
    return Events(len(events), branches, contents, offsets)


def _require_numbers(
    x: NDArray[np.float32], missing: NDArray[np.bool_], encoding: Encoding, events: Events
) -> None:
    bad = ~np.isfinite(x) & ~missing
    columns = encoding.layout.branch_of_columns()
    kinds = [np.dtype(branch.dtype).kind for branch in encoding.branches]
    for place, (branch, dtype) in enumerate(zip(encoding.branches, _dtypes(encoding), strict=True)):
        if kinds[place] == "f":
            continue
        if dtype == branch.dtype != events.contents[branch.name].dtype:
            problem = "is missing"
        elif bad[:, columns == place].any():
            problem = "is not finite"
        else:
            continue
        raise EncodeError(
            f"branch {branch.name!r} is {branch.dtype}, and a value of it {problem}",
            branch=branch.name,
        )


def decode_to_file(
    path: str | Path,
    x: NDArray[np.float32],
    missing: NDArray[np.bool_],
    encoding: Encoding,
    *,
    multiplicities: NDArray[np.int64] | None = None,
    tree: str = "Events",
    suffix: str = "",
    overwrite: bool = False,
    root_format: RootFormat = "auto",
) -> None:
    """Write dense rows as jagged events to a ROOT or Parquet file.

    The rows are decoded piece by piece: they may be memory-mapped. For rows that come one block
    after the other, append what `decoded_events` gives to a `write_events`.

    Parameters
    ----------
    path, tree, overwrite, root_format
        As for `write_events`.
    x, missing, encoding, multiplicities, suffix
        As for `decoded_events`.

    Raises
    ------
    EncodeError
        As `decoded_events`.
    WriteError
        As `write_events`.
    """
    branches = decoded_branches(encoding, suffix=suffix)
    with write_events(
        path, branches, tree=tree, overwrite=overwrite, root_format=root_format
    ) as file:
        for start in range(0, len(x), STEP):
            rows = slice(start, start + STEP)
            num_objects = None if multiplicities is None else multiplicities[:, rows]
            file.append(
                decoded_events(
                    x[rows], missing[rows], encoding, multiplicities=num_objects, suffix=suffix
                )
            )
        if len(x) == 0:  # the shapes are still checked
            decoded_events(x, missing, encoding, multiplicities=multiplicities)
