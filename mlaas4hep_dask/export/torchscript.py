"""TorchScript of a network with its normalisation and masking inside."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from mlaas4hep_dask.encode.encoding import Encoding
from mlaas4hep_dask.errors import ModelError
from mlaas4hep_dask.export.call import call_of, takes_missing
from mlaas4hep_dask.export.contract import compared, outputs_of, scores_of
from mlaas4hep_dask.export.reads import decides_by_values
from mlaas4hep_dask.export.scorer import WithMissing, scorer_of
from mlaas4hep_dask.objective import BINARY, Objective

CURE = (
    "let its forward decide with torch.where, which both can follow, or use what TorchScript knows"
)

MADE_UP_EVENTS = 60  # with which a network is tried where there are no others
DECIDES = "its code decides by the values of events"


def to_torchscript(
    network: torch.nn.Module,
    encoding: Encoding,
    objective: Objective = BINARY,
    *,
    rows: tuple[torch.Tensor, torch.Tensor] | None = None,
    is_known: bool = False,
) -> bytes:
    """A TorchScript file of ``network`` between an encoding and what its outputs mean.

    The file's ``forward`` takes raw padded columns (float64 or float32, NaN where missing) and
    gives scores; its ``score_encoded`` takes what `encode` makes. Of images, both take what
    `encode` makes. That of a reconstruction has ``reconstruct_encoded`` too, which gives rows. The
    network is scripted, or traced when it cannot be scripted or does not score as the network
    itself then. A trace holds what was done for the events of the trace: a network whose code
    decides by the values of events is not traced.

    Parameters
    ----------
    network : torch.nn.Module
        Is brought into eval mode.
    encoding : Encoding
        How events become its input.
    objective : Objective
        What it learned to give.
    rows : (Tensor of float32, Tensor of bool), optional
        Encoded events and their missing mask, on which the scores are compared, each alone and in
        batches; by default random ones.
    is_known : bool
        As for `outputs_of`. What comes out is asked for all events alone in any case.

    Raises
    ------
    ModelError
        When the network breaks its contract (see `outputs_of`), can be neither scripted nor
        traced, or what comes out gives other scores.
    """
    network = network.eval()
    x, missing = _made_up(encoding) if rows is None else rows
    wrapped = network if takes_missing(network) else WithMissing(network)
    problems = []
    with _without_warnings():
        with torch.no_grad():
            outputs = outputs_of(call_of(network), x, missing, objective, is_known=is_known)
        for make in (_scripted, _traced):
            try:
                content = _content(make(wrapped, x, missing), encoding, objective)
                problem = _difference(content, outputs, x, missing, objective)
            except Exception as error:  # torch.jit raises many kinds
                problem = _shortened(error)
            place = decides_by_values(wrapped, x, missing) if make is _traced else None
            if place is not None:
                problem = "; ".join([*filter(None, [problem]), f"{DECIDES}, in {place}"])
            if not problem:
                return content
            problems.append(problem)
    scripted, traced = problems
    raise ModelError(
        f"can be neither scripted ({scripted}) nor traced ({traced}) on {len(x):,} "
        f"{'made-up' if rows is None else 'real'} events; {CURE}"
    )


def _scripted(network: torch.nn.Module, x: torch.Tensor, missing: torch.Tensor) -> Any:
    del x, missing
    return torch.jit.script(network)


def _traced(network: torch.nn.Module, x: torch.Tensor, missing: torch.Tensor) -> Any:
    few = slice(0, 3)
    with torch.no_grad():
        return torch.jit.trace(  # type: ignore[no-untyped-call]
            network, (x[few].clone(), missing[few].clone()), check_trace=False
        )


def _content(network: Any, encoding: Encoding, objective: Objective) -> bytes:
    scorer = torch.jit.script(scorer_of(network, encoding, objective).eval())
    buffer = io.BytesIO()
    torch.jit.save(scorer, buffer)
    return buffer.getvalue()


def _difference(
    content: bytes,
    outputs: torch.Tensor,
    x: torch.Tensor,
    missing: torch.Tensor,
    objective: Objective,
) -> str:
    """How a file's scores, and rows, differ from those of the network itself; else empty."""
    loaded: Any = torch.jit.load(io.BytesIO(content))  # type: ignore[no-untyped-call]
    with torch.no_grad():
        expected = objective.activation()(outputs, x, missing)
        apart = compared(loaded.score_encoded(x, missing), expected, x, objective)
        if not apart and objective.gives_rows:
            apart = compared(loaded.reconstruct_encoded(x, missing), outputs, x, objective)
        if apart:
            return f"differs from the network {apart}"
        scores_of(loaded.score_encoded, x, missing, objective)
    return ""


def _shortened(error: Exception) -> str:
    """The first lines of an error; those of torch.jit show much of its own code too."""
    lines = [line.strip() for line in str(error).splitlines()]
    lines = [line for line in lines if re.search(r"\w", line.replace("HERE", ""))]
    if "TorchScript interpreter" in str(error):  # what it was doing comes first, why last
        return f"it fails: {lines[-1]}"
    return " ".join(lines[:3]) or type(error).__name__


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Silence torch.jit.

    It is deprecated in favour of torch.export, but TorchScript is the contract: it is what C++ and
    other servers load without Python. What its tracer suspects is compared and looked for here.
    """
    with warnings.catch_warnings():
        kinds: Any = (DeprecationWarning, FutureWarning, torch.jit.TracerWarning)  # type: ignore[attr-defined]
        for kind in kinds:
            warnings.simplefilter("ignore", kind)
        yield


def _made_up(encoding: Encoding) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(MADE_UP_EVENTS)
    shape = (MADE_UP_EVENTS, *encoding.row_shape)
    missing = torch.rand(shape, generator=generator) < 0.3
    x = torch.rand(shape, generator=generator)
    return torch.where(missing, torch.zeros_like(x), x), missing
