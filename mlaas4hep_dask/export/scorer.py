"""The modules of a bundle: a network between normalisation and what its numbers mean."""

# No `from __future__ import annotations`: torch.jit reads the annotations of buffers as types.
import numpy as np
import torch

from mlaas4hep_dask.encode.encoding import Encoding
from mlaas4hep_dask.formulas import FUNCTIONS, Function
from mlaas4hep_dask.objective import Objective


class WithMissing(torch.nn.Module):
    """A network of the inputs alone, called with the missing mask too."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor, missing: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        """What the network gives for its inputs."""
        return self.network(x)  # type: ignore[no-any-return]


class Applied(torch.nn.Module):
    """A function of the values in some columns; those in others stay."""

    columns: torch.Tensor

    def __init__(self, function: Function, columns: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("columns", columns)
        self.above: float = function.above
        self.function = function.in_torch

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        """Values, with the function's in place of those in its columns."""
        return torch.where(self.columns, self.function(value), value)

    @torch.jit.export
    def has_none(self, value: torch.Tensor) -> torch.Tensor:
        """True where the function has no value."""
        return self.columns & (value <= self.above)


class Scorer(torch.nn.Module):
    """Raw padded columns in, scores out; repeats `encode`'s arithmetic operation by operation."""

    shift: torch.Tensor
    scale: torch.Tensor
    low: torch.Tensor
    high: torch.Tensor
    absent: torch.Tensor
    is_single: torch.Tensor
    table_x: torch.Tensor
    table_y: torch.Tensor
    table_slopes: torch.Tensor
    tables: list[tuple[int, int, int]]  # first column, the next branch's, number of points

    def __init__(self, network: torch.nn.Module, encoding: Encoding, objective: Objective) -> None:
        super().__init__()
        layout = encoding.layout
        branch = layout.branch_of_columns()
        for key in ("shift", "scale", "low", "high"):
            values = np.array([getattr(scaling, key) for scaling in encoding.scalings])[branch]
            self.register_buffer(key, torch.as_tensor(values, dtype=torch.float64))
        transforms = np.array([scaling.transform for scaling in encoding.scalings])[branch]
        self.functions = torch.nn.ModuleList(
            Applied(function, torch.from_numpy(transforms == name))
            for name, function in FUNCTIONS.items()
            if (transforms == name).any()
        )
        tables = [(i, s.table) for i, s in enumerate(encoding.scalings) if s.table is not None]
        longest = max((len(table.x) for _, table in tables), default=2)
        points = np.zeros((3, len(tables), longest))
        places = []
        for row, (index, table) in enumerate(tables):
            first, stop = np.searchsorted(branch, [index, index + 1]).tolist()
            number = len(table.x)
            points[0, row, :number], points[1, row, :number] = table.x, table.y
            points[2, row, :number] = table.slopes()
            places.append((first, stop, number))
        self.tables = places
        for key, values in zip(("table_x", "table_y", "table_slopes"), points, strict=True):
            self.register_buffer(key, torch.as_tensor(values, dtype=torch.float64))
        # An infinity is missing anyway.
        absent = [np.inf if s.absent is None else s.absent for s in encoding.scalings]
        self.register_buffer("absent", torch.as_tensor(np.array(absent, np.float64)[branch]))
        single = np.array(
            [branch_read.dtype == "float32" for branch_read in encoding.branches], np.bool_
        )
        self.register_buffer("is_single", torch.from_numpy(single[branch]))
        # Without clipping both ends are infinite.
        clip = np.array([scaling.clip for scaling in encoding.scalings], dtype=np.bool_)[branch]
        self.low[~torch.from_numpy(clip)] = -torch.inf
        self.high[~torch.from_numpy(clip)] = torch.inf
        self.clip: bool = bool(clip.any())
        # What counts as out of range, by the specs of this model; not all numbers tell it.
        for key, end in (("least", "low"), ("greatest", "high")):
            ends = np.array([getattr(scaling, end) for scaling in encoding.scalings])[branch]
            self.register_buffer(key, torch.as_tensor(ends, dtype=torch.float64))
        self.network = network
        self.activation = objective.activation()

    def forward(self, raw: torch.Tensor) -> torch.Tensor:
        """Scores of raw columns, shape (events, columns), NaN where missing."""
        value = raw.double()
        missing = torch.logical_not(torch.isfinite(value))
        read = torch.where(self.is_single, value.float().double(), value)  # as a file would have it
        missing = missing | (read == self.absent)
        for function in self.functions:
            missing = missing | function.has_none(value)  # type: ignore[operator]
        if self.clip:
            value = torch.minimum(torch.maximum(value, self.low), self.high)
        plain = value
        for function in self.functions:
            value = function(value)
        x = ((value - self.shift) * self.scale).float()
        for row, (first, stop, number) in enumerate(self.tables):
            part = plain[:, first:stop].contiguous()
            piece = torch.searchsorted(self.table_x[row, :number].contiguous(), part, right=True)
            piece = (piece - 1).clamp(min=0)
            rise = (part - self.table_x[row][piece]) * self.table_slopes[row][piece]
            x[:, first:stop] = (self.table_y[row][piece] + rise).float()
        return self.score_encoded(torch.where(missing, torch.zeros_like(x), x), missing)

    @torch.jit.export
    def score_encoded(self, x: torch.Tensor, missing: torch.Tensor) -> torch.Tensor:
        """Scores of encoded rows and their missing mask."""
        return self.activation(self.network(x, missing), x, missing)  # type: ignore[no-any-return]


class Reconstructor(Scorer):
    """A scorer that gives the rows of an autoencoder too."""

    @torch.jit.export
    def reconstruct_encoded(self, x: torch.Tensor, missing: torch.Tensor) -> torch.Tensor:
        """What the network makes of encoded rows, of the shape of ``x``."""
        return self.network(x, missing).reshape(x.shape)  # type: ignore[no-any-return]


class ImageScorer(torch.nn.Module):
    """Images and their missing mask in, scores out."""

    def __init__(self, network: torch.nn.Module, objective: Objective) -> None:
        super().__init__()
        self.network = network
        self.activation = objective.activation()

    def forward(self, x: torch.Tensor, missing: torch.Tensor) -> torch.Tensor:
        """Scores of images, float32 (events, channels, ny, nx), and their missing mask."""
        return self.score_encoded(x, missing)

    @torch.jit.export
    def score_encoded(self, x: torch.Tensor, missing: torch.Tensor) -> torch.Tensor:
        """The same; the method that every bundle has."""
        return self.activation(self.network(x, missing), x, missing)  # type: ignore[no-any-return]


def scorer_of(
    network: torch.nn.Module, encoding: Encoding, objective: Objective
) -> Scorer | ImageScorer:
    """The module of a bundle around a network of rows or images and their missing mask."""
    if encoding.image is not None:
        return ImageScorer(network, objective)
    kind = Reconstructor if objective.gives_rows else Scorer
    return kind(network, encoding, objective)


def contradiction(loaded: torch.nn.Module, encoding: Encoding, objective: Objective) -> str | None:
    """Where the normalisation inside a loaded module is not that of an encoding.

    Parameters
    ----------
    loaded : torch.nn.Module
        From a bundle's ``model.pt``. What it does not hold, as those of others, is not compared.
    encoding : Encoding
        That of the bundle's specs and options.
    objective : Objective
        What the bundle says of the scores.

    Returns
    -------
    str or None
        Both numbers and their column or output; None when they agree.
    """
    expected = dict(scorer_of(torch.nn.Identity(), encoding, objective).named_buffers())
    buffers = dict(loaded.named_buffers())
    for name, value in expected.items():
        buffer = buffers.get(name)
        if buffer is None:
            continue
        if buffer.shape != value.shape:
            there, here = list(buffer.shape), list(value.shape)
            return f"{name} has {there} numbers in model.pt, {here} elsewhere"
        wrong = ~torch.isclose(buffer.double(), value.double(), rtol=1e-9, atol=0.0)
        if wrong.any():
            place = tuple(wrong.nonzero()[0].tolist())
            column = f"output {place[0]}"
            if "." not in name:
                column = f"table {place[0]}" if len(place) > 1 else encoding.columns()[place[0]]
            ours, theirs = buffer[place].item(), value[place].item()
            return (
                f"{name} of {column} is {ours} in model.pt, {theirs} by specs.json and "
                "manifest.json"
            )
    activation = getattr(loaded, "activation", None)
    kind = getattr(activation, "kind", objective.kind)
    number = getattr(activation, "num_outputs", objective.num_outputs)
    if (kind, number) != (objective.kind, objective.num_outputs):
        return (
            f"model.pt gives {kind} scores of {number} outputs, manifest.json says "
            f"{objective.kind} of {objective.num_outputs}"
        )
    return None
