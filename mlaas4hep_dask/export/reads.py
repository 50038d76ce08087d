"""Finds out whether a network's Python code decides by the values of events."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import FrameType
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from mlaas4hep_dask.export.call import Call

PROBES = (1.0, 0.0, -1.0, 1000.0, -1000.0)  # factors on the rows
# What they return follows from the shape of a batch, or from where its memory is.
OF_SHAPE = {"__get__", "__len__", "size", "dim", "ndimension", "numel", "nelement", "stride"}
OF_SHAPE |= {"storage_offset", "data_ptr", "is_contiguous", "element_size", "type", "get_device"}


class _Reads(TorchFunctionMode):
    """Keeps the plain values that Python code takes out of tensors, and where it does."""

    def __init__(self) -> None:
        super().__init__()
        self.values: list[str] = []
        self.places: list[str] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        is_plain = not isinstance(result, torch.Tensor | torch.Size | tuple) and result is not None
        if is_plain and getattr(func, "__name__", "") not in OF_SHAPE:
            self.values.append(repr(result))
            self.places.append(_place(inspect.currentframe()))
        return result


def decides_by_values(call: Call, x: torch.Tensor, missing: torch.Tensor) -> str | None:
    """Where a network's Python code takes values out of tensors that differ from event to event.

    Such code, as ``if x.sum() > 0``, runs once while a network is traced, and is not part of what
    the trace holds.

    Parameters
    ----------
    call : callable
        The network, in eval mode.
    x, missing : Tensor, shape (events, …)
        Real rows; those of other probes are made from them.

    Returns
    -------
    str or None
        The place, such as ``line 7 of network.py``; None if there is none.
    """
    first: _Reads | None = None
    for rows, mask in _probes(x, missing):
        try:
            with torch.no_grad(), _Reads() as reads:
                call(rows, mask)
        except Exception:  # noqa: S112  # made-up values may be too large for it: it fails, aloud
            continue
        if first is None:
            first = reads
            continue
        if reads.values == first.values:
            continue
        pairs = zip(first.values, reads.values, strict=False)
        place = next((i for i, (one, two) in enumerate(pairs) if one != two), 0)
        places = first.places or reads.places
        return places[min(place, len(places) - 1)]
    return None


def _probes(x: torch.Tensor, missing: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Batches of one size, so that what follows from it is the same in all."""
    size = min(8, max(len(x) // 2, 1))
    starts = range(0, len(x) - size + 1, size)
    parts = [(x[start : start + size], missing[start : start + size]) for start in starts]
    scaled = [(parts[0][0] * factor, parts[0][1]) for factor in PROBES]
    ends = [(parts[0][0], torch.full_like(parts[0][1], flag)) for flag in (False, True)]
    return [(rows.clone(), mask.clone()) for rows, mask in (*parts, *scaled, *ends)]


def _place(frame: FrameType | None) -> str:
    """The innermost frame outside torch and this module."""
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        if module != __name__ and not module.startswith("torch."):
            file = frame.f_code.co_filename.strip("<>").split("/")[-1]
            return f"line {frame.f_lineno} of {file.split(' ')[0]}"
        frame = frame.f_back
    return "forward"
