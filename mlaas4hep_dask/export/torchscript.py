"""TorchScript of a network with its normalisation and masking inside."""

# No `from __future__ import annotations`: torch.jit reads the annotations of buffers as types.
import inspect
import io
import warnings
from typing import Any

import numpy as np
import torch

from mlaas4hep_dask.encode.encoding import Encoding
from mlaas4hep_dask.encode.outputs import BINARY, Outputs
from mlaas4hep_dask.errors import ModelError
from mlaas4hep_dask.export.activation import Activation


def takes_missing(network: torch.nn.Module) -> bool:
    """True when the network's forward has a second parameter for the missing mask."""
    return len(inspect.signature(network.forward).parameters) > 1


class _WithMissing(torch.nn.Module):
    """A network of the inputs alone, called with the missing mask too."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor, missing: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        return self.network(x)  # type: ignore[no-any-return]


class _Scorer(torch.nn.Module):
    """Raw padded columns in, scores out; repeats `encode`'s arithmetic operation by operation."""

    shift: torch.Tensor
    scale: torch.Tensor
    low: torch.Tensor
    high: torch.Tensor
    is_log: torch.Tensor
    is_symlog: torch.Tensor
    table_x: torch.Tensor
    table_y: torch.Tensor
    table_slopes: torch.Tensor
    tables: list[tuple[int, int, int]]  # first column, the next branch's, number of points

    def __init__(self, network: torch.nn.Module, encoding: Encoding, outputs: Outputs) -> None:
        super().__init__()
        layout = encoding.layout
        branch = layout.branch_of_columns()
        for key in ("shift", "scale", "low", "high"):
            values = np.array([getattr(scaling, key) for scaling in encoding.scalings])[branch]
            self.register_buffer(key, torch.as_tensor(values, dtype=torch.float64))
        transforms = np.array([scaling.transform for scaling in encoding.scalings])[branch]
        self.register_buffer("is_log", torch.from_numpy(transforms == "log"))
        self.register_buffer("is_symlog", torch.from_numpy(transforms == "symlog"))
        self.has_log: bool = bool((transforms != "identity").any())
        tables = [(i, s.table) for i, s in enumerate(encoding.scalings) if s.table is not None]
        longest = max((len(table.x) for _, table in tables), default=2)
        points = np.zeros((3, len(tables), longest))
        places = []
        for row, (index, table) in enumerate(tables):
            first, stop = np.searchsorted(branch, [index, index + 1]).tolist()
            number = len(table.x)
            points[0, row, :number], points[1, row, :number] = table.x, table.y
            points[2, row, : number - 1] = table.slopes()
            places.append((first, stop, number))
        self.tables = places
        for key, values in zip(("table_x", "table_y", "table_slopes"), points, strict=True):
            self.register_buffer(key, torch.as_tensor(values, dtype=torch.float64))
        # Without clipping both ends are infinite.
        clip = np.array([scaling.clip for scaling in encoding.scalings], dtype=np.bool_)[branch]
        self.low[~torch.from_numpy(clip)] = -torch.inf
        self.high[~torch.from_numpy(clip)] = torch.inf
        self.clip: bool = bool(clip.any())
        self.network = network
        self.activation = Activation(outputs)

    def forward(self, raw: torch.Tensor) -> torch.Tensor:
        """Scores of raw columns, shape (events, columns), NaN where missing; as `Activation`."""
        value = raw.double()
        missing = torch.logical_not(torch.isfinite(value))
        if self.has_log:
            missing = missing | (self.is_log & (value <= 0))
        if self.clip:
            value = torch.minimum(torch.maximum(value, self.low), self.high)
        plain = value
        if self.has_log:
            symlog = torch.copysign(torch.log1p(value.abs()), value)
            value = torch.where(self.is_log, torch.log(value), value)
            value = torch.where(self.is_symlog, symlog, value)
        x = ((value - self.shift) * self.scale).float()
        for row, (first, stop, number) in enumerate(self.tables):
            part = plain[:, first:stop].contiguous()
            piece = torch.searchsorted(self.table_x[row, :number].contiguous(), part, right=True)
            piece = (piece - 1).clamp(0, number - 2)
            rise = (part - self.table_x[row][piece]) * self.table_slopes[row][piece]
            x[:, first:stop] = (self.table_y[row][piece] + rise).float()
        return self.score_encoded(torch.where(missing, torch.zeros_like(x), x), missing)

    @torch.jit.export
    def score_encoded(self, x: torch.Tensor, missing: torch.Tensor) -> torch.Tensor:
        """Scores of encoded rows and their missing mask."""
        return self.activation(self.network(x, missing), x, missing)  # type: ignore[no-any-return]


class _Reconstructor(_Scorer):
    """A scorer that gives the rows of an autoencoder too."""

    @torch.jit.export
    def reconstruct_encoded(self, x: torch.Tensor, missing: torch.Tensor) -> torch.Tensor:
        """What the network makes of encoded rows, of the shape of ``x``."""
        return self.network(x, missing).reshape(x.shape)  # type: ignore[no-any-return]


class _ImageScorer(torch.nn.Module):
    """Images and their missing mask in, scores out."""

    def __init__(self, network: torch.nn.Module, outputs: Outputs) -> None:
        super().__init__()
        self.network = network
        self.activation = Activation(outputs)

    def forward(self, x: torch.Tensor, missing: torch.Tensor) -> torch.Tensor:
        """Scores of images, float32 (events, channels, ny, nx), and their missing mask."""
        return self.score_encoded(x, missing)

    @torch.jit.export
    def score_encoded(self, x: torch.Tensor, missing: torch.Tensor) -> torch.Tensor:
        """The same; the method that every bundle has."""
        return self.activation(self.network(x, missing), x, missing)  # type: ignore[no-any-return]


def to_torchscript(
    network: torch.nn.Module, encoding: Encoding, outputs: Outputs = BINARY
) -> bytes:
    """A TorchScript file of ``network`` between the given encoding and its outputs' meaning.

    The file's ``forward`` takes raw padded columns (float64 or float32, NaN where missing) and
    gives scores; its ``score_encoded`` takes what `encode` makes. Of images, both take what
    `encode` makes. That of a reconstruction has ``reconstruct_encoded`` too, which gives rows. The
    network is scripted, or
    traced when it cannot be scripted; either way its scores are compared with the network's own.

    Raises
    ------
    ModelError
        When the network can be neither scripted nor traced, or the result differs from it.
    """
    network = network.eval()
    wrapped = network if takes_missing(network) else _WithMissing(network)
    # torch.jit is deprecated in favour of torch.export, but TorchScript is the contract: it is
    # what C++ and other servers load without Python.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        scripted = _scripted(wrapped, encoding)
        scorer: torch.nn.Module = _ImageScorer(scripted, outputs)
        if encoding.image is None:
            kind = _Reconstructor if outputs.kind == "reconstruction" else _Scorer
            scorer = kind(scripted, encoding, outputs)
        scorer = torch.jit.script(scorer.eval())
        buffer = io.BytesIO()
        torch.jit.save(scorer, buffer)
        loaded = torch.jit.load(io.BytesIO(buffer.getvalue()))  # type: ignore[no-untyped-call]
    _require_equal(wrapped, loaded, encoding, outputs)
    return buffer.getvalue()


def _scripted(network: torch.nn.Module, encoding: Encoding) -> Any:
    try:
        return torch.jit.script(network)
    except Exception as unscriptable:  # torch.jit raises many kinds; tracing may still do
        x, missing = _probe(encoding, events=3)
        try:
            with torch.no_grad():
                return torch.jit.trace(  # type: ignore[no-untyped-call]
                    network, (x, missing), check_trace=False
                )
        except Exception as error:
            raise ModelError(
                f"the network can be neither scripted ({unscriptable}) nor traced ({error})"
            ) from error


def _probe(encoding: Encoding, *, events: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(events)
    shape = (events, *encoding.row_shape)
    missing = torch.rand(shape, generator=generator) < 0.3
    x = torch.rand(shape, generator=generator)
    return torch.where(missing, torch.zeros_like(x), x), missing


def _require_equal(
    network: torch.nn.Module, loaded: Any, encoding: Encoding, outputs: Outputs
) -> None:
    activation = Activation(outputs)
    unit = max((1 / abs(scale) for scale in outputs.scales), default=1.0)
    precision = 1e-6 if outputs.scales else 0.0  # float32 of a target far from 0
    for events in (1, 2, 5):  # a trace that froze its batch size fails here
        x, missing = _probe(encoding, events=events)
        with torch.no_grad():
            given = network(x, missing)
            expected = activation(given, x, missing)
            try:
                found = loaded.score_encoded(x, missing)
                if outputs.kind == "reconstruction":
                    found = torch.cat([found, loaded.reconstruct_encoded(x, missing).flatten()])
                    expected = torch.cat([expected, given.flatten()])
            except RuntimeError as error:
                raise ModelError(f"the exported network fails on {events} events") from error
        if not torch.allclose(found, expected, rtol=precision, atol=1e-6 * unit, equal_nan=True):
            worst = float((found - expected).abs().max())
            raise ModelError(
                f"the exported network differs from the trained one by {worst:.3g} on "
                f"{events} events; is it random or does it depend on the batch?"
            )
