"""Networks in ONNX and as programs of torch.export: the same scores, or an error."""

import io
import sys
from zipfile import ZipFile

import awkward as ak
import numpy as np
import pytest
import torch

from mlaas4hep_dask.config import Image
from mlaas4hep_dask.encode import Encoding, encode
from mlaas4hep_dask.encode.examples import Examples
from mlaas4hep_dask.encode.raw import raw_columns
from mlaas4hep_dask.errors import ModelError
from mlaas4hep_dask.events import Events
from mlaas4hep_dask.export.programs import TRIED, to_programs
from mlaas4hep_dask.formats import EXPORTS
from mlaas4hep_dask.objective import BINARY, Classes
from mlaas4hep_dask.specs.measure import measure
from mlaas4hep_dask.train.network import cnn, mlp

NEEDS_LATER_TORCH = pytest.mark.skipif(
    tuple(map(int, str(torch.__version__).split(".")[:2])) < TRIED,
    reason=f"PyTorch {torch.__version__} exports fewer networks",
)
NEEDS_ONNX = pytest.mark.usefixtures("onnx")


@pytest.fixture(scope="module")
def onnx():
    return pytest.importorskip("onnxruntime", reason="pip install 'mlaas4hep_dask[onnx]'")


def examples_of(events, encoding):
    encoded = encode(events, encoding)
    labels = np.arange(len(events)) % 2 * np.float32(1)
    raw = raw_columns(events, encoding)
    return Examples(encoded.dense(), encoded.missing(), labels, np.ones_like(labels), raw)


@pytest.fixture(scope="module")
def made():
    """Few events of few branches, whose encoding has a table, a line and sorted objects."""
    rng = np.random.default_rng(1)
    multiplicities = rng.poisson(1.5, 200)
    momenta = ak.unflatten(rng.exponential(30.0, multiplicities.sum()), multiplicities)
    met = np.append(rng.normal(size=199), np.nan)
    return Events.from_awkward(ak.Array({"MET": met, "Jet_pt": momenta}))


@pytest.fixture(scope="module")
def automatic(made):
    specs = measure(made, sample="s")
    encoding = Encoding.from_specs(specs, width=3, sort={"Jet": "-Jet_pt"}, out_of_range="clip")
    assert [scaling.table is None for scaling in encoding.scalings] == [True, False]
    return encoding


class Masked(torch.nn.Module):
    def __init__(self, num_columns, num_outputs=1):
        super().__init__()
        self.linear = torch.nn.Linear(2 * num_columns, num_outputs)

    def forward(self, x, missing):
        return self.linear(torch.cat([x, missing.float()], dim=1))


class Decides(torch.nn.Module):
    """Its code looks at values: TorchScript can follow it, a program cannot."""

    def __init__(self, num_columns):
        super().__init__()
        self.linear = torch.nn.Linear(num_columns, 1)

    def forward(self, x):
        rows = [row * 2 if bool(row.mean() > 0.5) else row for row in x]
        return self.linear(torch.stack(rows))


def test_raw_columns_are_the_values_that_rows_are_made_of(cms_events):
    specs = measure(cms_events, sample="s")
    plain = Encoding.from_specs(specs, normalisation="none", width=2, sort={"Jet": "-Jet_E"})
    encoded, raw = encode(cms_events, plain), raw_columns(cms_events, plain)
    assert np.array_equal(np.isnan(raw), encoded.missing())
    assert np.array_equal(np.nan_to_num(raw).astype(np.float32), encoded.dense())
    first = plain.layout.columns().index("Jet_E[0]")
    energies = ak.to_numpy(ak.max(cms_events.to_awkward()["Jet_E"], axis=1).to_numpy())
    assert np.array_equal(np.nan_to_num(raw[:, first]), np.ma.filled(energies, 0.0))


@NEEDS_LATER_TORCH
@pytest.mark.slow
@NEEDS_ONNX
def test_a_program_scores_raw_events_as_the_network_does(automatic, made):
    import onnxruntime

    torch.manual_seed(1)
    network = Masked(automatic.layout.num_columns, 3)
    objective = Classes(("a", "b", "c"))
    events = examples_of(made, automatic)
    files = to_programs(network, automatic, objective, events, formats=tuple(EXPORTS))
    assert list(files) == ["model.onnx", "model.pt2"]
    with torch.no_grad():
        x, missing = torch.from_numpy(events.x), torch.from_numpy(events.missing)
        expected = torch.softmax(network(x, missing), dim=1).numpy()
    session = onnxruntime.InferenceSession(files["model.onnx"], providers=["CPUExecutionProvider"])
    (columns,) = session.get_inputs()
    assert (columns.name, columns.type) == ("columns", "tensor(double)")
    (found,) = session.run(None, {"columns": events.raw})
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    with ZipFile(io.BytesIO(files["model.pt2"])) as archive:
        starts = {archive.read(name)[:2] for name in archive.namelist()}
    assert not {start for start in starts if start == b"PK" or start[:1] == b"\x80"}  # no pickle
    program = torch.export.load(io.BytesIO(files["model.pt2"])).module()
    found = program(torch.from_numpy(events.raw[:5])).detach().numpy()
    np.testing.assert_allclose(found, expected[:5], rtol=0, atol=1e-6)
    assert expected.std() > 0.01


@NEEDS_LATER_TORCH
@pytest.mark.slow
def test_images_have_programs_too(cms_events):
    axes = {axis: {"branches": f"Jet_P{axis}"} for axis in "xy"}
    keys = {"axes": axes, "channels": [{"value": "Jet_btag"}]}
    specs = measure(cms_events, sample="s")
    encoding = Encoding.from_specs(specs, image=Image(**keys).model_dump())
    encoded = encode(cms_events, encoding)
    labels = np.zeros(len(cms_events), np.float32)
    rows = np.arange(50)
    events = Examples(encoded.dense(rows), encoded.missing(rows), labels[rows], labels[rows] + 1)
    files = to_programs(cnn(encoding.row_shape), encoding, BINARY, events, formats=["torch_export"])
    assert list(files) == ["model.pt2"]


@pytest.mark.slow
def test_what_cannot_be_a_program_is_an_error_that_says_why(automatic, made):
    network, events = Decides(automatic.layout.num_columns), examples_of(made, automatic)
    with pytest.raises(ModelError, match=r"cannot be exported as torch_export \(.*export\.formats"):
        to_programs(network, automatic, BINARY, events, formats=["torch_export"])


class Sought(torch.nn.Module):
    """Seeks values among points as each of some options says."""

    def __init__(self, options):
        super().__init__()
        self.linear = torch.nn.Linear(1, 1)
        self.register_buffer("points", torch.tensor([-1.0, 0.0, 0.0, 0.5]))
        self.options = options

    def forward(self, x, missing):
        x = torch.where(missing, 0.0, x).round(decimals=0)  # some of them are points
        total = torch.zeros_like(x[:, :1])
        for each in self.options:
            for points in (self.points, self.points + x[:, :1]):
                found = torch.searchsorted(points.contiguous(), x, **each)
                total = total + 0.1 * found.sum(dim=1, keepdim=True)
        return self.linear(total)


class SortedBy(Sought):
    """Its points have an order of their own."""

    def __init__(self):
        super().__init__(())
        self.register_buffer("order", torch.arange(4))

    def forward(self, x, missing):
        found = torch.searchsorted(self.points, x.contiguous(), sorter=self.order)
        return self.linear(found.sum(dim=1, keepdim=True) * 0.1) + missing[:, :1]


@NEEDS_LATER_TORCH
@pytest.mark.slow
@NEEDS_ONNX
def test_what_searches_among_points_is_in_onnx_too(automatic, made):
    torch.manual_seed(1)
    events = examples_of(made, automatic)
    options = ({}, {"right": True}, {"side": "left"}, {"side": "right", "out_int32": True})
    files = to_programs(Sought(options), automatic, BINARY, events, formats=["onnx"])
    assert list(files) == ["model.onnx"]  # its scores were compared
    with pytest.raises(ModelError, match=r"as onnx \(.*: searchsorted with sorter\); leave it out"):
        to_programs(SortedBy(), automatic, BINARY, events, formats=["onnx"])


def test_a_package_that_is_not_there_is_named(automatic, made, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    events = examples_of(made, automatic)
    with pytest.raises(ModelError, match=r"needs .*onnxruntime: pip install '.*\[onnx\]'"):
        to_programs(mlp(automatic.layout.num_columns), automatic, BINARY, events, formats=["onnx"])


def test_torchscript_alone_makes_no_program(automatic, made):
    events = examples_of(made, automatic)
    network = mlp(automatic.layout.num_columns)
    assert to_programs(network, automatic, BINARY, events, formats=["torchscript"]) == {}
