"""Compiled loops that draw objects into images; arrays in, arrays out."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

SUM, MAX, COUNT = 0, 1, 2  # what becomes of objects that share a cell


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]  # numba is not annotated
def axis_cells(
    values: NDArray[Any], edges: NDArray[np.float64], periodic: bool, out: NDArray[np.int32]
) -> tuple[int, int]:
    """Write the cell of each value along one axis to ``out``, -1 for none.

    Parameters
    ----------
    values : ndarray, shape (objects,)
        Coordinates.
    edges : ndarray of float64, shape (cells + 1,)
        Ascending edges of equal cells. A cell holds its lower edge; the last one holds both, as
        with ``numpy.histogram``.
    periodic : bool
        The two ends of the axis are one point, which is in the first cell. Values less than
        1e-7 of the period below it count as that point, since π in float32 is not π in float64.
    out : ndarray of int32, shape (objects,)
        Receives the cells.

    Returns
    -------
    tuple of int
        Number of coordinates that are not finite, and number outside the axis.
    """
    num_cells = edges.size - 1
    low, high = edges[0], edges[num_cells]
    length = high - low
    per_length = num_cells / length
    num_missing = 0
    num_outside = 0
    for i in range(values.size):
        value: Any = np.float64(values[i])
        if not abs(value) < np.inf:
            num_missing += 1
            out[i] = -1
            continue
        if periodic:
            beyond = (value - low) % length
            value = low if beyond >= length * (1.0 - 1e-7) else low + beyond
        elif value < low or value > high:
            num_outside += 1
            out[i] = -1
            continue
        cell: Any = min(int((value - low) * per_length), num_cells - 1)
        if value < edges[cell]:  # the product above is rounded; the edges decide
            cell -= 1
        elif cell + 1 < num_cells and value >= edges[cell + 1]:
            cell += 1
        out[i] = cell
    return num_missing, num_outside


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def plane_cells(
    x: NDArray[np.int32], y: NDArray[np.int32], width: int, first: int, out: NDArray[np.int32]
) -> int:
    """Write the cells of a plane, ``y * width + first + x`` or -1, to ``out``.

    Returns
    -------
    int
        Number of objects that are in no cell.
    """
    num_lost = 0
    for i in range(x.size):
        if x[i] < 0 or y[i] < 0:
            out[i] = -1
            num_lost += 1
        else:
            out[i] = y[i] * width + first + x[i]
    return num_lost


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def count_shared(offsets: NDArray[np.int64], cells: NDArray[np.int32], size: int) -> int:
    """Number of objects in a cell that an earlier object of their event is in."""
    last = np.full(size, -1, dtype=np.int64)  # event that was last in each cell
    num_shared = 0
    for event in range(offsets.size - 1):
        for i in range(offsets[event], offsets[event + 1]):
            cell = cells[i]
            if cell >= 0:
                if last[cell] == event:
                    num_shared += 1
                last[cell] = event
    return num_shared


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def pack(
    offsets: NDArray[np.int64],
    cells: NDArray[np.int32],
    cell_starts: NDArray[np.int64],
    values: NDArray[np.float32],
    value_starts: NDArray[np.int64],
    rows: NDArray[np.int64],
    combines: NDArray[np.int64],
    bases: NDArray[np.int64],
    size: int,
    out_offsets: NDArray[np.int64],
    out_cells: NDArray[np.int32],
    out_values: NDArray[np.float64],
) -> int:
    """Write the occupied cells of every event with the combined values of their objects.

    Parameters
    ----------
    offsets : ndarray of int64, shape (collections, events + 1)
        Where each event's objects begin.
    cells : ndarray of int32
        Cells of the objects, one plane of one collection after the other.
    cell_starts, value_starts, rows, combines, bases : ndarray of int64, shape (layers,)
        Of each plane of each channel: where its cells and its values begin, its row of
        ``offsets``, `SUM`, `MAX` or `COUNT`, and the position of its channel in the image.
    values : ndarray of float32
        Encoded values, one branch after the other; objects with NaN are left out.
    size : int
        Numbers in one image.
    out_offsets : ndarray of int64, shape (events + 1,)
        Receives where each event's entries begin.
    out_cells, out_values : ndarray, shape (at least one per object and layer,)
        Receive the entries. Sums are float64, in the order of the objects.

    Returns
    -------
    int
        Number of entries.
    """
    last = np.full(size, -1, dtype=np.int64)  # event that was last in each cell
    place = np.empty(size, dtype=np.int64)  # its entry
    number = 0
    out_offsets[0] = 0
    for event in range(offsets.shape[1] - 1):
        for layer in range(rows.size):
            starts = offsets[rows[layer]]
            combine = combines[layer]
            for i in range(starts[event], starts[event + 1]):
                cell = cells[cell_starts[layer] + i]
                if cell < 0:
                    continue
                value = 1.0
                if combine != COUNT:
                    value = np.float64(values[value_starts[layer] + i])
                    if value != value:
                        continue
                cell += bases[layer]
                if last[cell] != event:
                    last[cell] = event
                    place[cell] = number
                    out_cells[number] = cell
                    out_values[number] = value
                    number += 1
                elif combine == MAX:
                    out_values[place[cell]] = max(out_values[place[cell]], value)
                else:
                    out_values[place[cell]] += value
        out_offsets[event + 1] = number
    return number


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def scatter_cells(
    offsets: NDArray[np.int64],
    cells: NDArray[np.int32],
    values: NDArray[np.float32],
    flat: NDArray[np.float32],
    plane_size: int,
    rows: NDArray[np.int64],
    positions: NDArray[np.int64],
    is_mask: bool,
    out: NDArray[Any],
) -> None:
    """Write the images of the events ``rows`` to ``out``, or their missing mask.

    Parameters
    ----------
    offsets : ndarray of int64, shape (events + 1,)
        Where each event's entries begin.
    cells, values : ndarray, shape (entries,)
        Position in the image, and what stands there.
    flat : ndarray of float32, shape (events, flat branches)
        Values that fill a channel each, after all others.
    plane_size : int
        Numbers in one channel.
    rows, positions : ndarray of int64, shape (rows,)
        Events to write, and the row of ``out`` for each.
    is_mask : bool
        Write 1 where a cell is empty or a flat value missing, else 0; values, and 0, otherwise.
    out : ndarray of float32 or bool, shape (positions, channels * plane_size)
        Receives the images.
    """
    num_flat = flat.shape[1]
    end = out.shape[1] - num_flat * plane_size
    for i in range(rows.size):
        row, position = rows[i], positions[i]
        if is_mask:
            out[position, :end] = 1
        else:
            out[position, :end] = 0  # a constant, which memory is set to in one go
        for entry in range(offsets[row], offsets[row + 1]):
            out[position, cells[entry]] = np.float32(0) if is_mask else values[entry]
        for j in range(num_flat):
            value = flat[row, j]
            is_missing = value != value
            first = end + j * plane_size
            content = np.float32(0) if is_missing else value
            out[position, first : first + plane_size] = is_missing if is_mask else content
