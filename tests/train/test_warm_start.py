import io
import tarfile
from dataclasses import replace

import awkward as ak
import numpy as np
import pytest
import torch
from alone import COLUMNS, Memory, run_epoch, task_of
from test_method import KEYS
from test_trial import encoding_of, network, tried

from mlaas4hep_dask.bundle import open_bundle, write_bundle
from mlaas4hep_dask.config import Config
from mlaas4hep_dask.config.load import load
from mlaas4hep_dask.encode import Encoding
from mlaas4hep_dask.encode.input_layout import input_layout
from mlaas4hep_dask.errors import ConfigError, ModelError
from mlaas4hep_dask.events import Events
from mlaas4hep_dask.export import to_torchscript
from mlaas4hep_dask.objective import BINARY
from mlaas4hep_dask.run.method import method_of
from mlaas4hep_dask.run.placing import code_at_its_line
from mlaas4hep_dask.specs.measure import measure
from mlaas4hep_dask.train.hooks import Context, Hooks
from mlaas4hep_dask.train.method import Method
from mlaas4hep_dask.train.network import mlp
from mlaas4hep_dask.train.rank import Rank
from mlaas4hep_dask.train.requirements import learned
from mlaas4hep_dask.train.views import Categories, CollectionViews
from mlaas4hep_dask.train.warm_start import find_warm_start


class Masked(torch.nn.Module):
    """A network that asks for the missing mask, so that nothing stands around it."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor, missing: torch.Tensor) -> torch.Tensor:
        return self.inner(torch.where(missing, 0.0, x))


class Viewed(torch.nn.Module):
    """A network with buffers that are in no checkpoint, and in every TorchScript."""

    def __init__(self, layout):
        super().__init__()
        self.views, self.category = CollectionViews(layout), Categories(layout.branch("nJet"))
        self.embedding = torch.nn.Embedding(layout.branch("nJet").num_categories, 2)
        self.last = torch.nn.Linear(2, 1)

    def forward(self, x: torch.Tensor, missing: torch.Tensor) -> torch.Tensor:
        objects = self.views(x, missing).objects["Jet"].sum(dim=1)
        return (
            self.last(objects) + self.embedding(self.category(x, missing)).sum(dim=(1, 2))[:, None]
        )


def start_of(path, *patterns):
    return find_warm_start(
        str(path), patterns or ("*",), resolve=path.parent.joinpath, where="dataset.yaml:9"
    )


def checkpoint_of(network, path, **more):
    torch.save({"network": network.state_dict(), **more}, path)
    return path


def require_equal(one, other):
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """A bundle with a network that knows the name of each of its columns."""
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(1)
    network, encoding = mlp(4, hidden=[5]), encoding_of()
    network.eval()
    made = write_bundle(
        folder / "bundle",
        name="made",
        model=to_torchscript(network, encoding, BINARY),
        specs=specs_of(),
        encode={"normalisation": "minmax"},
        metrics={},
        data={},
        card="",
    )
    return network, made


def specs_of():
    columns = {f"x{i}": np.arange(3.0) for i in range(4)}
    return measure(Events.from_awkward(ak.Array(columns)), sample="s")


def test_a_bundle_its_archive_and_its_run_give_the_parameters_of_its_network(bundle, tmp_path):
    network, made = bundle
    archive = tmp_path / "made.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(made.path, "made")
    for path in (made.path, made.path.parent, archive, made.model_path):
        other = mlp(4, hidden=[5])
        start = start_of(path)
        start.fill(other)
        require_equal(network, other)
        if path != made.model_path:
            assert start.columns == ("x0", "x1", "x2", "x3")
    assert open_bundle(made.path).name == "made"  # nothing has changed it


def test_a_network_that_takes_the_mask_is_found_in_its_torchscript(tmp_path):
    network = Masked(mlp(4, hidden=[5])).eval()
    path = tmp_path / "model.pt"
    path.write_bytes(to_torchscript(network, encoding_of(), BINARY))
    other = Masked(mlp(4, hidden=[5]))
    start_of(path).fill(other)
    require_equal(network, other)


def test_buffers_that_are_in_no_checkpoint_do_not_have_to_be_in_a_bundle_s_either(tmp_path):
    jets = {"Jet_pt": [[3.5, 2.0], [], [1.0]], "Jet_eta": [[0.5, 0.2], [], [0.1]]}
    columns = ak.Array({"nJet": np.array([2, 0, 1]), **jets})
    specs = measure(Events.from_awkward(columns), sample="s")
    encoding = Encoding.from_specs(specs)
    layout = input_layout(encoding, specs)
    network = Viewed(layout).eval()
    path = tmp_path / "model.pt"
    path.write_bytes(to_torchscript(network, encoding, BINARY))
    other = Viewed(layout)
    start_of(path).fill(other)
    require_equal(network, other)
    del other.category.low
    with pytest.raises(ModelError, match=r"do not fit: category.low is there and not here"):
        start_of(path).fill(other)


def test_a_parameter_may_be_called_network(tmp_path):
    own = torch.nn.ParameterDict({"network": torch.ones(2), "other": torch.ones(3)})
    torch.save(own.state_dict(), tmp_path / "plain.pt")
    other = torch.nn.ParameterDict({"network": torch.zeros(2), "other": torch.zeros(3)})
    start_of(tmp_path / "plain.pt").fill(other)
    require_equal(own, other)


def test_a_checkpoint_gives_the_network_and_not_the_optimiser(tmp_path):
    memory = Memory()
    rank = Rank(task_of(memory), None)
    state = run_epoch(rank, memory, 1).state
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "epoch-2.pt").write_bytes(b"an earlier one")
    (folder / "checkpoints" / "epoch-10.pt").write_bytes(state)
    start = start_of(folder)
    begun = Rank(task_of(memory, method=Method(warm_start=start)), None)
    require_equal(rank.learner.network, begun.learner.network)
    assert begun.learner.stepper.optimiser.state_dict()["state"] == {}
    plain = tmp_path / "plain.pt"
    torch.save(rank.learner.network.state_dict(), plain)
    other = mlp(COLUMNS, hidden=[4])
    start_of(plain).fill(other)
    require_equal(rank.learner.network, other)


def test_the_moving_average_begins_there_too(tmp_path):
    path = checkpoint_of(mlp(COLUMNS, hidden=[4]), tmp_path / "a.pt")
    method = Method(warm_start=start_of(path), ema=0.9)
    learner = Rank(task_of(Memory(), method=method), None).learner
    require_equal(learner.network, learner.stepper.measured)


def test_patterns_tell_what_is_taken(tmp_path):
    torch.manual_seed(1)
    path = checkpoint_of(mlp(4, num_outputs=3, hidden=[5]), tmp_path / "a.pt")
    own = mlp(4, hidden=[5])
    last = own[-1].weight.detach().clone()
    start_of(path, "0.*").fill(own)
    state = torch.load(path, weights_only=True)["network"]
    assert torch.equal(own[0].weight, state["0.weight"])
    assert torch.equal(own[-1].weight, last)
    with pytest.raises(ModelError, match=r"no parameter's name matches '1.weight'; did you mean"):
        start_of(path, "1.weight").fill(own)


def test_parameters_that_do_not_fit_are_named_in_one_line(tmp_path):
    path = checkpoint_of(mlp(4, hidden=[5, 6]), tmp_path / "a.pt")
    with pytest.raises(ModelError) as caught:
        start_of(path).fill(mlp(7, hidden=[5]))
    text = str(caught.value)
    assert "training.warm_start: the parameters of" in text
    assert "0.weight is (5, 4) there and (5, 7) here; 3.weight is (6, 5) there and (1, 5)" in text
    assert "\n" not in text
    assert "and 2 more" in text  # 6.weight and 6.bias
    broken = tmp_path / "broken.pt"
    broken.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ModelError, match=r"dataset.yaml:9: training.warm_start: "):
        start_of(broken)
    empty = tmp_path / "empty.pt"
    torch.save({"network": {}}, empty)
    with pytest.raises(ModelError, match=r"empty.pt holds no parameters"):
        start_of(empty).fill(mlp(4))
    with pytest.raises(ModelError, match=r"9: training.warm_start: .*none does not exist; expect"):
        start_of(tmp_path / "none")
    with pytest.raises(ModelError, match="has neither a bundle nor a checkpoint"):
        start_of(tmp_path)


def test_a_network_that_is_there_twice_is_not_chosen_between(tmp_path):
    torch.manual_seed(1)
    twice = torch.nn.ModuleDict({"main": mlp(4, hidden=[5]), "aux": mlp(4, hidden=[5])})
    path, own = checkpoint_of(twice, tmp_path / "twice.pt"), mlp(4, hidden=[5])
    for patterns in ((), ("0.*",)):
        with pytest.raises(
            ModelError, match=r"twice.pt has these parameters more than once, .* 'aux' and 'main'"
        ):
            start_of(path, *patterns).fill(own)
    whole = torch.nn.ModuleDict({"aux": mlp(4, hidden=[5]), "other": mlp(3)})
    start_of(path, "aux.*").fill(whole)
    require_equal(whole["aux"], twice["aux"])
    # A part is found by the names of all others, where some alone are taken.
    again = torch.nn.ModuleDict({"net": mlp(4, hidden=[5])})
    path = checkpoint_of(again, tmp_path / "again.pt")
    start_of(path, "0.weight").fill(own)
    assert torch.equal(own[0].weight, again["net"][0].weight)


def test_a_moving_average_of_torch_gives_its_network(tmp_path):
    trained = torch.nn.Linear(3, 1)
    mean = torch.optim.swa_utils.AveragedModel(trained)
    mean.update_parameters(trained)
    torch.save(mean.state_dict(), tmp_path / "mean.pt")
    fresh = torch.nn.Linear(3, 1)
    start_of(tmp_path / "mean.pt").fill(fresh)
    require_equal(trained, fresh)


def test_what_is_beside_the_network_is_too_much(tmp_path):
    torch.manual_seed(1)
    both = torch.nn.ModuleDict({"body": mlp(4, hidden=[5]), "head": torch.nn.Linear(1, 2)})
    path, own = checkpoint_of(both, tmp_path / "both.pt"), mlp(4, hidden=[5])
    with pytest.raises(ModelError, match=r"head.weight is there and not here; head.bias is there"):
        start_of(path).fill(own)
    start_of(path, "?*").fill(own)
    require_equal(own, both["body"])

    class Both(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = mlp(4, hidden=[5]), torch.nn.Linear(1, 1)

        def forward(self, x: torch.Tensor, missing: torch.Tensor) -> torch.Tensor:
            return self.head(self.body(torch.where(missing, 0.0, x)))

    path = tmp_path / "model.pt"
    path.write_bytes(to_torchscript(Both().eval(), encoding_of(), BINARY))
    with pytest.raises(ModelError, match=r"network.head.bias is there and not here"):
        start_of(path).fill(own)


def test_the_trial_tells_of_other_shapes_and_of_other_columns(tmp_path):
    text = network("return self.linear(x)")
    buffer = io.BytesIO()
    torch.save({"linear.weight": torch.zeros(1, 4), "linear.bias": torch.zeros(1)}, buffer)
    (tmp_path / "a.pt").write_bytes(buffer.getvalue())
    start = start_of(tmp_path / "a.pt")
    assert tried(tmp_path, text, method=Method(warm_start=start)).warnings == ()
    other = replace(start, columns=("x0", "x2", "x1", "x3"))
    (warning,) = tried(tmp_path, text, method=Method(warm_start=other)).warnings
    assert warning.endswith("learned other columns: column 1 is 'x2' there and 'x1' here")
    fewer = replace(start, columns=("x0", "x1"))
    (warning,) = tried(tmp_path, text, method=Method(warm_start=fewer)).warnings
    assert warning.endswith("there are 2 there and 4 here")
    torch.save({"linear.weight": torch.zeros(1, 3), "linear.bias": torch.zeros(1)}, tmp_path / "b")
    with pytest.raises(ModelError, match=r"linear.weight is \(1, 3\) there and \(1, 4\) here"):
        tried(tmp_path, text, method=Method(warm_start=start_of(tmp_path / "b")))


def test_dataset_yaml_names_where_to_start(tmp_path):
    path = checkpoint_of(mlp(4), tmp_path / "a.pt")
    keys = {**KEYS, "training": {"warm_start": "a.pt"}}
    there = Config.from_mapping(keys, base=tmp_path)
    start = method_of(there).warm_start
    assert (start.path, start.content, start.patterns) == ("a.pt", path.read_bytes(), ("*",))
    assert str(path) in there.to_yaml(absolute=True)
    keys["training"]["warm_start"] = {"path": "a.pt", "parameters": []}
    with pytest.raises(ConfigError, match="at least one entry"):
        Config.from_mapping(keys, base=tmp_path)


YAML = """\
name: made
samples:
  - {name: signal, label: 1, files: s.root}
  - {name: background, label: 0, files: b.root}
training:
  warm_start: a.pt
  hooks:
    - hooks.py:Broken
  freeze: ["*"]
"""


def test_what_fails_when_it_runs_is_said_with_the_line_of_its_key(tmp_path):
    checkpoint_of(mlp(4, hidden=[5]), tmp_path / "a.pt")
    (tmp_path / "hooks.py").write_text("class Broken:\n    on_step = None\n")
    (tmp_path / "dataset.yaml").write_text(YAML)
    config = load(tmp_path / "dataset.yaml")
    method = method_of(config)
    with (
        pytest.raises(ModelError, match=r"dataset.yaml:6: training.warm_start: .*0.weight is"),
        code_at_its_line(config),
    ):
        method.warm_start.fill(mlp(7, hidden=[5]))
    with (
        pytest.raises(ModelError, match=r"dataset.yaml:8: hooks\[0\] 'hooks.py:Broken' gave "),
        code_at_its_line(config),
    ):
        Hooks(method.hooks, Context(mlp(4), None))
    for pattern, said in (("*", " leaves no parameter"), ("1.*", ": no parameter's name matches")):
        with (
            pytest.raises(ModelError, match=rf"dataset.yaml:9: training.freeze{said}"),
            code_at_its_line(config),
        ):
            learned(mlp(4), [pattern])


def test_hooks_of_one_callable_are_told_apart(tmp_path):
    (tmp_path / "hooks.py").write_text(
        "class Odd:\n    def __init__(self, bad):\n        self.on_step = None if bad else print\n"
    )
    text = "    - callable: hooks.py:Odd\n      kwargs: {{bad: {}}}\n"
    for first, line in (("true", 8), ("false", 10)):
        second = "false" if first == "true" else "true"
        hooks = text.format(first) + text.format(second)
        yaml = YAML.partition("    - hooks")[0] + hooks
        (tmp_path / "dataset.yaml").write_text(yaml.replace("  warm_start: a.pt", "  ranks: 1"))
        config = load(tmp_path / "dataset.yaml")
        with (
            pytest.raises(ModelError, match=rf"dataset.yaml:{line}: hooks\[{line // 2 - 4}\] "),
            code_at_its_line(config),
        ):
            Hooks(method_of(config).hooks, Context(mlp(4), None))
