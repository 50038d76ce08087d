"""Specs of the events of one partition."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from mlaas4hep_dask.events.events import Branch, Events
from mlaas4hep_dask.events.lengths import disagreement, require_length
from mlaas4hep_dask.formulas import FUNCTIONS
from mlaas4hep_dask.formulas.compiled import values_of
from mlaas4hep_dask.specs.draw import Draw, entry_keys, event_keys
from mlaas4hep_dask.specs.exact import LARGEST
from mlaas4hep_dask.specs.meter import Group, Meter
from mlaas4hep_dask.specs.moments import EMPTY, Moments, to_row
from mlaas4hep_dask.specs.sample import SampleSpecs
from mlaas4hep_dask.specs.specs import Specs
from mlaas4hep_dask.specs.table import BranchTable, Drawn, group_rows


def measure(
    events: Events,
    *,
    sample: str,
    ids: NDArray[np.uint64] | None = None,
    meter: Meter | None = None,
    branches: Sequence[Branch] | None = None,
    transforms: Mapping[str, str] | None = None,
    classes: NDArray[np.uint8] | None = None,
) -> Specs:
    """Specs of ``events``.

    Parameters
    ----------
    events : Events
        Selected events of one sample.
    sample : str
        Name of the sample.
    ids : ndarray of uint64, shape (events, 2), optional
        File's id and entry of each event, by which values are drawn for quantiles; by default
        the events count from 0, which suits specs that are not merged with others.
    meter : Meter, optional
        Made with the same ids, and given to `read`: what it has seen of the events is not measured
        again.
    branches : sequence of Branch, optional
        What to measure, by default all of ``events``; others when ``meter`` has seen them.
    transforms : mapping of str to str, optional
        By branch: the name of a function of its values that is measured too, see `formulas`.
    classes : ndarray of uint8, shape (events,), optional
        The class of each event, by which `encode` judges what placeholders tell.

    Returns
    -------
    Specs
        Statistics over ``events`` alone, all of which count as read and selected with a weight of
        1; `merge` adds those of other partitions.

    Raises
    ------
    DataError
        When arrays of the events, ``ids`` or ``classes`` have other lengths than the others say.
    """
    events.checked()
    if ids is not None and ids.shape != (events.num_events, 2):
        raise disagreement("ids of events", ids.shape, (events.num_events, 2))
    if classes is not None:
        require_length("classes of events", classes, events.num_events)
    if meter is None or len(meter) != events.num_events:
        meter = Meter(entry_keys(0, 0, events.num_events) if ids is None else event_keys(ids))
    offsets = events.offsets
    if branches is None:
        branches = events.branches
    else:
        collections = {branch.collection for branch in branches}
        offsets = {
            name: of_collection for name, of_collection in offsets.items() if name in collections
        }
    multiplicities = {
        collection: meter.group(collection, of_collection).multiplicities
        for collection, of_collection in offsets.items()
    }
    numbers = np.empty((len(branches), 8))
    draws: dict[str, Draw] = {}
    blocks: list[Drawn] = []
    for (name, dtype), rows in group_rows(branches).items():
        collection = branches[rows[0]].collection
        group = meter.group(collection, None if collection is None else offsets[collection])
        draws[name] = group.draw if classes is None else group.with_classes(classes)
        names = [branches[row].name for row in rows]
        numbers[rows], values = _measured(names, dtype, events, meter, group)
        blocks.append(Drawn(name, tuple(rows), values))
    further, function_rows = [], []
    for row, branch in enumerate(branches):
        if transforms is not None and (key := transforms.get(branch.name)) is not None:
            of_function = values_of(FUNCTIONS[key].code, events.contents[branch.name])
            function_rows.append(to_row(moments(of_function)))
            further.append((row, key))
    if further:
        numbers = np.concatenate([numbers, np.array(function_rows)])
    table = BranchTable(branches, numbers, blocks, further)
    sample_specs = SampleSpecs(events.num_events, events.num_events, float(events.num_events))
    return Specs(table, multiplicities, {sample: sample_specs}, draws=draws)


def _measured(
    names: list[str], dtype: str, events: Events, meter: Meter, group: Group
) -> tuple[NDArray[np.float64], NDArray[Any]]:
    """Rows of moments, shape (branches, 8), and drawn values of branches of one group and dtype."""
    observations, rows = meter.observations(names, events.contents)
    if observations is not None and rows == [*range(len(observations.values))]:
        numbers, values, good = (
            observations.numbers.copy(),
            observations.drawn,
            observations.are_enough(),
        )
    else:
        numbers, good = np.empty((len(names), 8)), [False] * len(names)
        values = np.empty((len(names), group.places.size), dtype)
        enough = [] if observations is None else observations.are_enough()
        for number, (name, row) in enumerate(zip(names, rows, strict=True)):
            if observations is not None and row is not None and enough[row]:
                numbers[number], values[number] = observations.numbers[row], observations.drawn[row]
                good[number] = True
            else:
                values[number] = _at(events.contents[name], group.places)
    for number, name in enumerate(names):
        if not good[number]:
            numbers[number] = to_row(moments(events.contents[name]))
    return numbers, values


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _at(values: NDArray[Any], places: NDArray[np.intp]) -> NDArray[Any]:
    """The values at some places."""
    out = np.empty(places.size, values.dtype)
    for i in range(places.size):
        out[i] = values[places[i]]
    return out


# The reduction may be reassociated, so that LLVM keeps several partial sums in vector registers,
# and contracted to fused instructions, and only that. NaN and infinities never reach it.
@numba.njit(nogil=True, cache=True, fastmath={"contract", "reassoc", "nsz"})  # type: ignore[untyped-decorator]
def _mean_and_squares(values: NDArray[Any]) -> tuple[float, float]:
    pivot = np.float64(values[0])  # keeps the sum small next to the values
    total = 0.0
    for i in range(values.size):
        total += np.float64(values[i]) - pivot
    mean = pivot + total / values.size
    squares = 0.0
    for i in range(values.size):
        deviation = np.float64(values[i]) - mean
        squares += deviation * deviation
    return mean, squares


# Comparing floats would have to ask for NaN at every value; bits compare as they are, and put NaN
# beyond the infinities. Those of negative floats are negative, and ascend with the magnitude.
@numba.njit(nogil=True, cache=True, fastmath={"contract", "reassoc", "nsz"})  # type: ignore[untyped-decorator]
def _one_pass(
    values: NDArray[Any], bits: NDArray[Any], unsigned: NDArray[Any], ends: NDArray[Any]
) -> tuple[float, float, float]:
    """A pivot, and sums of deviations from it; ``ends`` gets the bits of minimum and maximum."""
    few = min(values.size, 1024)
    pivot = 0.0
    for i in range(few):
        pivot += np.float64(values[i])
    pivot /= few
    low = high = bits[0]
    farthest = unsigned[0]
    total = squares = 0.0
    for i in range(values.size):
        deviation = np.float64(values[i]) - pivot
        total += deviation
        squares += deviation * deviation
        low = min(low, bits[i])
        high = max(high, bits[i])
        farthest = max(farthest, unsigned[i])
    ends[0], ends[1] = low, high
    if low < 0:
        ends[0] = farthest
    if high < 0:
        ends[1] = low
    return pivot, total, squares


def _quick_moments(values: NDArray[Any]) -> Moments | None:
    """Moments of finite floats that lie around their first ones; None of any others."""
    size = values.dtype.itemsize
    ends = np.empty(2, dtype=values.dtype)
    pivot, total, squares = _one_pass(
        values, values.view(f"i{size}"), values.view(f"u{size}"), ends.view(f"u{size}")
    )
    low, high = ends.tolist()
    shift = total / values.size
    # Far from the pivot, the difference of the two sums would lose digits.
    spread = squares - total * shift
    if not (math.isfinite(low) and math.isfinite(high) and 0.5 * squares <= spread < math.inf):
        return None
    return Moments(values.size, 0, 0, 0, low + 0.0, high + 0.0, pivot + shift, spread)  # not -0.0


def moments(values: NDArray[Any]) -> Moments:
    """Moments of ``values``, an array of any numeric dtype and shape (values,)."""
    size = values.size
    if size == 0:
        return EMPTY
    if values.dtype == np.bool_:
        values = values.view(np.uint8)
    if values.dtype in (np.float32, np.float64) and (quick := _quick_moments(values)) is not None:
        return quick
    low, high = float(values.min()), float(values.max())  # NaN if any value is NaN
    if np.isfinite(low) and np.isfinite(high):
        mean, squares = _mean_and_squares(values)
        if not math.isfinite(squares):  # such as sentinels at the end of float64
            mean, _ = _mean_and_squares(values * 2.0**-600)
            mean, squares = min(max(mean * 2.0**600, low), high), LARGEST
        return Moments(size, 0, 0, 0, low, high, mean, squares)
    finite = values[np.isfinite(values)]
    num_nan = int(np.isnan(values).sum())
    num_posinf = int(np.isposinf(values).sum())
    part = moments(finite)
    num_neginf = size - finite.size - num_nan - num_posinf
    return part._replace(
        num_values=size, num_nan=num_nan, num_posinf=num_posinf, num_neginf=num_neginf
    )
