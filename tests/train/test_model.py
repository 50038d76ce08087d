import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from textwrap import dedent

import awkward as ak
import numpy as np
import pytest
import torch

from mlaas4hep_dask.encode import Encoding
from mlaas4hep_dask.errors import ModelError
from mlaas4hep_dask.events import Events
from mlaas4hep_dask.specs.measure import measure
from mlaas4hep_dask.train.model import find_model
from mlaas4hep_dask.train.network import mlp

GOOD = """
    from dataclasses import dataclass

    import torch

    @dataclass
    class Sizes:
        hidden: int = 3

    class Block(torch.nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(width, width)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + torch.relu(self.linear(x))

    class Network(torch.nn.Module):
        def __init__(self, num_columns: int, sizes: Sizes) -> None:
            super().__init__()
            self.head = torch.nn.Linear(num_columns, sizes.hidden)
            self.block = Block(sizes.hidden)
            self.tail = torch.nn.Linear(sizes.hidden, 1)

        def forward(self, x: torch.Tensor, missing: torch.Tensor) -> torch.Tensor:
            if x.shape[0] > 1000000:  # scripting keeps this branch, tracing would not
                x = x * 2
            return self.tail(self.block(self.head(x + missing.float())))

    def build(num_columns, hidden=3):
        return Network(num_columns, Sizes(hidden))
    """


def find(tmp_path, text, *, function="build", kwargs=None, name="network.py"):
    (tmp_path / name).write_text(dedent(text), encoding="utf-8")
    return find_model(
        f"{name}:{function}",
        {} if kwargs is None else kwargs,
        resolve=lambda path: tmp_path / path,
        where="dataset.yaml, line 9",
    )


def build_and_export(source):
    """In a fresh process: the exported network's scores, and those of the network itself."""
    import io
    import warnings

    from mlaas4hep_dask.export import to_torchscript

    encoding = encoding_of(3)
    torch.manual_seed(1)
    network = source.build(3)
    content = to_torchscript(network, encoding)
    x, missing = torch.rand(4, 3), torch.rand(4, 3) < 0.3
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        exported = torch.jit.load(io.BytesIO(content))
    with torch.no_grad():
        found = exported.score_encoded(x, missing)
        expected = torch.sigmoid(network(x, missing)).reshape(-1)
    return exported.network.code, found.numpy(), expected.numpy()


def encoding_of(num_columns):
    columns = {f"x{i}": np.arange(3.0) for i in range(num_columns)}
    return Encoding.from_specs(measure(Events.from_awkward(ak.Array(columns)), sample="s"))


@pytest.mark.slow
def test_a_file_s_classes_are_scripted_from_text_in_another_process(tmp_path):
    source = find(tmp_path, GOOD, kwargs={"hidden": 5})
    (tmp_path / "network.py").unlink()  # a worker has no such file
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        code, found, expected = pool.submit(build_and_export, source).result()
    assert "1000000" in code  # scripted, not traced
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_a_source_is_the_text_and_survives_the_network(tmp_path):
    source = find(tmp_path, GOOD, kwargs={"hidden": 5})
    back = pickle.loads(pickle.dumps(source))  # noqa: S301  # our own bytes
    assert back == source
    assert back.code.digest == source.code.digest
    assert back.build(4).head.in_features == 4
    assert back.build(4).head.out_features == 5
    assert find(tmp_path, GOOD + "\n    # changed").code.digest != source.code.digest


def test_a_changed_file_gives_the_changed_network(tmp_path):
    first = find(tmp_path, GOOD)
    second = find(tmp_path, GOOD.replace("hidden=3", "hidden=7"))
    assert first.build(2).head.out_features == 3
    assert second.build(2).head.out_features == 7
    assert first.build(2).head.out_features == 3


def test_an_installed_module_is_found_by_its_name():
    source = find_model(
        "mlaas4hep_dask.train.network:mlp", {"hidden": [7]}, resolve=Path, where="here"
    )
    assert not source.code.sources
    assert source.reference == "mlaas4hep_dask.train.network:mlp"
    network = source.build(5)
    assert [tuple(p.shape) for p in network.parameters()] == [(7, 5), (7,), (1, 7), (1,)]


def test_the_default_network_is_the_published_one():
    network = mlp(10)
    kinds = [type(layer).__name__ for layer in network]
    assert kinds == ["Linear", "ReLU", "Dropout"] * 2 + ["Linear"]
    assert [layer.out_features for layer in network if hasattr(layer, "out_features")] == [
        128,
        64,
        1,
    ]
    assert {layer.fraction for layer in network if hasattr(layer, "fraction")} == {0.5}
    assert network(torch.zeros(6, 10)).shape == (6, 1)
    assert mlp(4, hidden=()).state_dict().keys() == {"0.weight", "0.bias"}


def test_building_leaves_the_network_in_training_mode(tmp_path):
    assert find(tmp_path, GOOD).build(3).training


def test_a_file_that_is_not_there_names_the_nearest(tmp_path):
    (tmp_path / "network.py").write_text("", encoding="utf-8")
    with pytest.raises(ModelError, match=r"did you mean 'network\.py'") as caught:
        find_model("netwrk.py:build", {}, resolve=lambda p: tmp_path / p, where="line 9")
    assert str(caught.value).startswith("line 9: ")
    assert caught.value.callable == "netwrk.py:build"


@pytest.mark.parametrize("module", ["no_such_module", "mlaas4hep_dask.no_such", "network", ""])
def test_a_module_that_is_not_there_is_named(module):
    with pytest.raises(ModelError, match=f"module '{module}' cannot be found"):
        find_model(f"{module}:build", {}, resolve=Path, where="line 9")


def test_a_callable_that_is_not_there_names_the_nearest(tmp_path):
    with pytest.raises(ModelError, match=r"has no 'biuld'; did you mean 'build'\?"):
        find(tmp_path, GOOD, function="biuld")
    with pytest.raises(ModelError, match=r"has no 'mpl'; did you mean 'mlp'\?"):
        find_model("mlaas4hep_dask.train.network:mpl", {}, resolve=Path, where="line 9")


def test_a_syntax_error_names_its_line_before_anything_runs(tmp_path):
    with pytest.raises(ModelError, match=r"network\.py:build': line 3: "):
        find(tmp_path, "import torch\n\ndef build(:\n    pass\n")


def test_text_that_is_no_utf8_is_named(tmp_path):
    (tmp_path / "network.py").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ModelError, match="cannot be read"):
        find_model("network.py:build", {}, resolve=lambda p: tmp_path / p, where="line 9")


@pytest.mark.parametrize(
    "text",
    [
        "from torch.nn import *\ndef other(): ...\n",
        "from functools import partial\nbuild: object = print\n",
        "if True:\n    def build(n): ...\n",
        "try:\n    from absent import build\nexcept ImportError:\n    def build(n): ...\n",
        "build, other = print, print\n",
        "from os import path as build\n",
        "class build: ...\n",
    ],
)
def test_a_callable_may_be_defined_in_any_way(text, tmp_path):
    assert find(tmp_path, text).code.function == "build"


CLASS = """
    import torch

    class build(torch.nn.Module):
        def __init__(self, num_columns):
            super().__init__()
            self.linear = torch.nn.Linear(num_columns, 2)

        def forward(self, x):
            return {returned}
    """


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "def build(n): raise ValueError('no network for you')",
            "in line 1 of network.py .ValueError: no network",
        ),
        ("def build(): ...", "TypeError"),
        ("def build(n): return 3", r"returned int, expected torch\.nn\.Module"),
        ("import absent_module\ndef build(n): ...", "cannot be imported.*absent_module"),
        ("build = 3", "is no function"),
    ],
)
def test_a_network_that_does_not_work_is_a_model_error(text, message, tmp_path):
    source = find(tmp_path, text)
    with pytest.raises(ModelError, match=message) as caught:
        source.build(4)
    assert "network.py:build" in str(caught.value)
    assert caught.value.callable.endswith("network.py:build")


def test_a_class_is_a_callable_too(tmp_path):
    text = CLASS.replace("{returned}", "self.linear(x)[:, 0]")
    assert find(tmp_path, text).build(4).linear.in_features == 4


def test_unknown_arguments_of_the_callable_are_named(tmp_path):
    with pytest.raises(ModelError, match=r"'hiden', it takes .*; did you mean 'hidden'"):
        find(tmp_path, GOOD, kwargs={"hiden": 3}).build(4)
