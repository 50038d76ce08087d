"""Other forms of a network beside TorchScript: ONNX, and the program of torch.export."""

from __future__ import annotations

import importlib.util
import io
import logging
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from mlaas4hep_dask.encode.encoding import Encoding
from mlaas4hep_dask.encode.examples import Examples
from mlaas4hep_dask.errors import ModelError
from mlaas4hep_dask.export.call import call_of, takes_missing
from mlaas4hep_dask.export.contract import compared
from mlaas4hep_dask.export.scorer import WithMissing, scorer_of
from mlaas4hep_dask.formats import EXPORTS, ONNX_PACKAGES
from mlaas4hep_dask.objective import Objective

SIZES = (1, 2, 7)  # of batches, beside all events at once
FEW = 3  # events of the trace
TRIED = (2, 13)  # PyTorch with which all this was tried; 2.6 cannot
ANSI = re.compile(r"\x1b\[[0-9;]*m")

Tensors = tuple[torch.Tensor, ...]
Run = Callable[..., torch.Tensor]


def to_programs(
    network: torch.nn.Module,
    encoding: Encoding,
    objective: Objective,
    events: Examples,
    *,
    formats: Sequence[str],
) -> dict[str, bytes]:
    """Files of a network between an encoding and what its outputs mean, by their names.

    Each takes what the ``forward`` of `to_torchscript` takes, and gives the same: raw padded
    columns (float64, NaN where missing) to scores; of images, these and their missing mask. Each
    is loaded again and compared with the network itself, on all events and in small batches.

    Parameters
    ----------
    network : torch.nn.Module
        Is brought into eval mode.
    encoding : Encoding
        How events become its input.
    objective : Objective
        What it learned to give.
    events : Examples
        Real events.
    formats : sequence of str
        Keys of `EXPORTS`.

    Raises
    ------
    ModelError
        When the network cannot be exported in one of the formats, what comes out gives other
        scores, or a package is missing.
    """
    wanted = [each for each in EXPORTS if each in formats]
    if not wanted:
        return {}
    network = network.eval()
    x, missing = torch.tensor(events.x), torch.tensor(events.missing)
    with torch.no_grad():
        outputs = call_of(network)(x.clone(), missing.clone()).reshape(len(x), -1)
        expected = objective.activation()(outputs, x, missing)
    inputs: Tensors = (x, missing)
    if encoding.image is None:
        assert events.raw is not None  # rows have them
        inputs = (torch.tensor(events.raw),)
    wrapped = network if takes_missing(network) else WithMissing(network)
    scorer = scorer_of(wrapped, encoding, objective).eval()
    files = {}
    program: Any = None
    for name in wanted:
        _require_packages(name)
        try:
            with _silent():
                program = program or _program(scorer, inputs)
                content, run = _KINDS[name](program, inputs)
                apart = _difference(run, inputs, expected, x, objective)
        except Exception as error:  # torch.export and its converters raise many kinds
            raise ModelError(
                f"cannot be exported as {name} ({_shortened(error)}); leave it out of "
                "export.formats, or let forward use operations of torch alone, and shapes of its "
                f"inputs: no numbers taken out of tensors{_hint()}"
            ) from error
        if apart:
            raise ModelError(f"gives other scores as {name}, {apart}")
        files[EXPORTS[name]] = content
    return files


def _hint() -> str:
    version = str(torch.__version__)
    is_older = tuple(map(int, version.split(".")[:2])) < TRIED
    tried = ".".join(map(str, TRIED))
    return f"; here is PyTorch {version}, and later ones can more (tried: {tried})" * is_older


def _require_packages(name: str) -> None:
    if name != "onnx":
        return
    lacking = [each for each in ONNX_PACKAGES if importlib.util.find_spec(each) is None]
    if lacking:
        raise ModelError(
            f"is to be exported as onnx (export.formats), which needs {', '.join(lacking)}: pip "
            "install 'mlaas4hep_dask[onnx]'"
        )


def _program(scorer: torch.nn.Module, inputs: Tensors) -> Any:
    """What torch.export makes of a scorer, for any number of events."""
    few = tuple(each[:FEW].clone() for each in inputs)
    events = torch.export.Dim("events", min=1)
    return torch.export.export(scorer, few, dynamic_shapes=tuple({0: events} for _ in few))


def _of_torch(program: Any, inputs: Tensors) -> tuple[bytes, Run]:
    del inputs
    program.example_inputs = None  # would be written as a pickle, which no bundle holds
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    content = buffer.getvalue()
    return content, torch.export.load(io.BytesIO(content)).module()


def _of_onnx(program: Any, inputs: Tensors) -> tuple[bytes, Run]:
    import onnxruntime

    names = ("columns",) if len(inputs) == 1 else ("image", "missing")
    made: Any = torch.onnx.export(
        program,
        dynamo=True,
        input_names=names,
        output_names=["scores"],
        verbose=False,
        optimize=False,  # a quarter of the time, for what ONNX Runtime does itself when it loads
        custom_translation_table={torch.ops.aten.searchsorted.Tensor: _searchsorted},
    )
    content = made.model_proto.SerializeToString()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def run(*tensors: torch.Tensor) -> torch.Tensor:
        arrays = dict(zip(names, (each.numpy() for each in tensors), strict=True))
        return torch.from_numpy(session.run(["scores"], arrays)[0])

    return content, run


def _searchsorted(
    points: Any,
    values: Any,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: Any = None,
) -> Any:
    """How many points are below each value, or not above it: ONNX has no operation of its own."""
    import onnxscript

    op: Any = onnxscript.opset18
    if sorter is not None:
        raise NotImplementedError("searchsorted with sorter")
    last = op.Constant(value_ints=[-1])
    if len(points.shape) > 1:  # each row of values has points of its own
        points = op.Unsqueeze(points, op.Constant(value_ints=[-2]))
    compare = op.GreaterOrEqual if right or side == "right" else op.Greater
    is_reached = compare(op.Unsqueeze(values, last), points)
    to = onnxscript.INT32 if out_int32 else onnxscript.INT64
    return op.ReduceSum(op.Cast(is_reached, to=int(to.dtype)), last, keepdims=0)


_KINDS: Mapping[str, Callable[[Any, Tensors], tuple[bytes, Run]]] = {
    "onnx": _of_onnx,
    "torch_export": _of_torch,
}


def _difference(
    run: Run, inputs: Tensors, expected: torch.Tensor, x: torch.Tensor, objective: Objective
) -> str:
    """How the scores of a program differ from those expected, however they are asked for."""
    with torch.no_grad():
        for size in (len(x), *SIZES):
            part = slice(0, size)
            scores = run(*(each[part] for each in inputs))
            if scores.shape != expected[part].shape:
                return f"of shape {tuple(scores.shape)} for {size} events"
            if apart := compared(scores, expected[part], x[part], objective):
                return str(apart)
    return ""


def _shortened(error: Exception) -> str:
    """The last cause of an error, in one line."""
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    lines = [line.strip() for line in ANSI.sub("", str(cause)).splitlines() if line.strip()]
    return ": ".join([type(cause).__name__, *(line[:300] for line in lines[:1])])


@contextmanager
def _silent() -> Iterator[None]:
    """Silence what the exporters say of torch's own code and of packages that are not there."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
