import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from mlaas4hep_dask.config import Config
from mlaas4hep_dask.errors import ConfigError, ModelError
from mlaas4hep_dask.run.method import method_of
from mlaas4hep_dask.train.method import OPTIMISERS, SCHEDULERS, Method, find_piece
from mlaas4hep_dask.train.requirements import learned
from mlaas4hep_dask.train.stepping import Stepper

OWN = """
import numpy
import torch

def plain(parameters, lr, slower=1.0):
    return torch.optim.SGD(parameters, lr=lr / slower)

def nothing(parameters):
    return list(parameters)

def halved(optimiser):
    return torch.optim.lr_scheduler.MultiplicativeLR(optimiser, lambda epoch: 0.5)

def falling(optimiser, total_steps):
    return torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1 - step / total_steps)

def chained(optimiser):
    schedules = torch.optim.lr_scheduler
    parts = [schedules.ConstantLR(optimiser, 0.5, 2), schedules.ExponentialLR(optimiser, 0.5)]
    return schedules.ChainedScheduler(parts)

class Curve(torch.optim.lr_scheduler.LRScheduler):
    def __init__(self, optimiser, total_steps):
        self.sizes = numpy.linspace(1, 0, total_steps + 1)
        super().__init__(optimiser)
    def get_lr(self):
        return [lr * float(self.sizes[self.last_epoch]) for lr in self.base_lrs]

class Counting(torch.optim.SGD):
    def state_dict(self):
        return {**super().state_dict(), "often": lambda: 3}

class Loud(torch.optim.SGD):
    def step(self, closure=None):
        raise ValueError("no step today")
"""


def piece(name, what="optimiser", folder=Path(), **kwargs):
    return find_piece(
        SimpleNamespace(callable=name, kwargs=kwargs),
        what=what,
        home=OPTIMISERS if what == "optimiser" else SCHEDULERS,
        resolve=lambda path: folder / path,
        where="dataset.yaml:9",
    )


def linear():
    torch.manual_seed(0)
    return torch.nn.Linear(3, 1)


def rates(stepper, network, *, epochs=2, steps=3, metric=1.0):
    """The size of every step; each of a gradient of ones."""
    sizes = []
    for _ in range(epochs):
        for _ in range(steps):
            sizes.append(stepper.learning_rate)
            for parameter in network.parameters():
                parameter.grad = torch.ones_like(parameter)
            stepper.step()
        stepper.end_epoch(metric)
    return sizes


def stepped(method, network=None, **options):
    network = network or linear()
    options = {"learning_rate": 0.1, "steps": 3, "epochs": 2, **options}
    stepper = Stepper(network, method, **options)
    return stepper, network, rates(stepper, network)


def test_names_of_torch_are_its_own_optimisers():
    sgd = piece("SGD", momentum=0.5)
    stepper, network, _ = stepped(Method(optimiser=sgd))
    assert type(stepper.optimiser) is torch.optim.SGD
    expected = linear()
    plain = torch.optim.SGD(expected.parameters(), lr=0.1, momentum=0.5)
    for _ in range(6):
        for parameter in expected.parameters():
            parameter.grad = torch.ones_like(parameter)
        plain.step()
    for one, other in zip(network.parameters(), expected.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_user_file_and_its_keyword_arguments_make_an_optimiser(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    own = piece("own.py:plain", folder=tmp_path, slower=4)
    _, _, sizes = stepped(Method(optimiser=own))
    assert sizes == [0.025] * 6


def test_a_scheduler_is_called_after_every_step_if_it_takes_their_number(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    sgd = piece("SGD")
    cycle = Method(optimiser=sgd, scheduler=piece("OneCycleLR", "scheduler"))
    _, _, sizes = stepped(cycle)
    assert max(sizes) == pytest.approx(0.1, rel=0.01)
    assert len(set(sizes)) == 6
    halved = Method(optimiser=sgd, scheduler=piece("own.py:halved", "scheduler", tmp_path))
    assert stepped(halved)[2] == [0.1] * 3 + [0.05] * 3
    each_step = Method(
        optimiser=sgd, scheduler=piece("own.py:halved", "scheduler", tmp_path), every="step"
    )
    assert stepped(each_step)[2] == [0.1 / 2**n for n in range(6)]
    chained = piece("own.py:chained", "scheduler", tmp_path)
    sizes = stepped(Method(optimiser=sgd, scheduler=chained, every="step"))[2]
    assert sizes == pytest.approx([0.05, 0.025, 0.025, 0.0125, 0.00625, 0.003125])
    cosine = Method(optimiser=sgd, scheduler=piece("CosineAnnealingLR", "scheduler"))
    assert stepped(cosine)[2][-1] == pytest.approx(0.1 * (1 + math.cos(math.pi / 2)) / 2)


def test_a_plateau_is_one_of_the_metric_by_which_epochs_are_compared():
    plateau = piece("ReduceLROnPlateau", "scheduler", patience=0, factor=0.1)
    for is_more_better, metrics, drops in (
        (False, (3.0, 2.0, 2.5), True),
        (True, (3.0, 2.0, 2.5), True),
        (True, (0.1, 0.2, 0.3), False),
    ):
        network = linear()
        method = Method(optimiser=piece("SGD"), scheduler=plateau)
        facts = {"epochs": 3, "is_more_better": is_more_better}
        stepper = Stepper(network, method, learning_rate=1.0, **facts)
        for metric in metrics:
            rates(stepper, network, epochs=1, metric=metric)
        assert (stepper.learning_rate < 1) == drops
        stepper.end_epoch(None)  # nothing is validated: it is told nothing


def test_the_gradient_is_not_longer_than_its_limit():
    method = Method(optimiser=piece("SGD"), clip_norm=0.5)
    network = linear()
    before = torch.cat([p.detach().flatten().clone() for p in network.parameters()])
    stepper = Stepper(network, method, learning_rate=1.0)
    rates(stepper, network, epochs=1, steps=1)
    after = torch.cat([p.detach().flatten() for p in network.parameters()])
    assert float((after - before).norm()) == pytest.approx(0.5, rel=1e-4)  # of 2 without


def test_the_mean_of_the_parameters_is_measured():
    method = Method(optimiser=piece("SGD"), ema=0.5)
    stepper, network, _ = stepped(method)
    assert stepper.measured is not network
    values, mean = linear().bias.detach().clone(), None
    for _ in range(6):
        values = values - 0.1
        mean = values.clone() if mean is None else 0.5 * mean + 0.5 * values
    assert torch.allclose(stepper.measured.bias, mean)
    assert torch.allclose(network.bias, values)
    assert torch.equal(stepper.state()["network"]["bias"], stepper.measured.bias)


class Indexed(torch.nn.Module):
    """A network with buffers that index and count, and one that is an average."""

    def __init__(self):
        super().__init__()
        self.bias = torch.nn.Parameter(torch.zeros(1))
        self.register_buffer("numbers", torch.arange(1, 7), persistent=False)
        self.register_buffer("is_used", torch.tensor([True, False]))
        self.register_buffer("num_seen", torch.tensor(0))
        self.register_buffer("average", torch.zeros(1))


def test_the_mean_leaves_what_indexes_and_counts_as_it_is():
    network = Indexed()
    stepper = Stepper(network, Method(optimiser=piece("SGD"), ema=0.9995), learning_rate=0.1)
    for number in range(1, 2001):
        network.num_seen.fill_(number)
        network.average.fill_(1.0)
        network.bias.grad = torch.ones(1)
        stepper.step()
    measured = stepper.measured
    assert measured.numbers.tolist() == [1, 2, 3, 4, 5, 6]
    assert measured.is_used.tolist() == [True, False]
    assert measured.num_seen == 2000
    assert measured.average == 1.0
    assert measured.bias > network.bias


def test_frozen_parameters_stay_as_they_are():
    stepper, network, _ = stepped(Method(freeze=("wei*",)))
    assert torch.equal(network.weight, linear().weight)
    assert not torch.equal(network.bias, linear().bias)
    assert len(stepper.optimiser.param_groups[0]["params"]) == 1
    with pytest.raises(ModelError, match=r"matches 'weights'; did you mean 'weight'\?"):
        learned(linear(), ["weights"])
    with pytest.raises(ModelError, match="leaves no parameter to learn"):
        learned(linear(), ["*"])


@pytest.mark.parametrize("ema", [None, 0.9])
def test_a_checkpoint_has_all_that_the_next_steps_depend_on(ema):
    method = Method(
        optimiser=piece("AdamW"), scheduler=piece("OneCycleLR", "scheduler"), ema=ema, clip_norm=1.0
    )
    whole, first, second = linear(), linear(), linear()
    options = {"learning_rate": 0.1, "steps": 3, "epochs": 4}
    undisturbed = Stepper(whole, method, **options)
    expected = rates(undisturbed, whole, epochs=4)
    begun = Stepper(first, method, **options)
    found = rates(begun, first)
    resumed = Stepper(second, method, **options)
    resumed.take_up(begun.state())
    assert found + rates(resumed, second) == expected
    for name, value in undisturbed.state()["network"].items():
        assert torch.equal(value, resumed.state()["network"][name])


@pytest.mark.parametrize("name", ["OneCycleLR", "own.py:falling"])
@pytest.mark.parametrize("steps", [2, 5])
def test_a_schedule_is_as_long_as_it_was_where_epochs_have_other_steps(name, steps, tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    method = Method(scheduler=piece(name, "scheduler", tmp_path))
    options = {"learning_rate": 0.1, "epochs": 4}
    whole, first, second = linear(), linear(), linear()
    expected = rates(Stepper(whole, method, steps=3, **options), whole, epochs=4)
    begun = Stepper(first, method, steps=3, **options)
    rates(begun, first)
    resumed = Stepper(second, method, steps=steps, **options)
    resumed.take_up(begun.state())
    found = rates(resumed, second, steps=steps)
    assert found[:6] == expected[6 : 6 + len(found)]
    last = rates(resumed, second, epochs=1, steps=9)[-1]
    assert set(found[7:]) <= {last}  # it has come to its end
    again = Stepper(linear(), method, steps=5, **options)
    again.take_up(resumed.state())  # a second time, from what was taken up
    assert again.learning_rate == last


def test_a_state_that_checkpoints_cannot_hold_is_named(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    for name in ("OneCycleLR", "ReduceLROnPlateau", "own.py:chained", "own.py:falling"):
        method = Method(optimiser=piece("AdamW"), scheduler=piece(name, "scheduler", tmp_path))
        stepped(method)[0].require_state()
    curve, _, _ = stepped(Method(scheduler=piece("own.py:Curve", "scheduler", tmp_path)))
    with pytest.raises(ModelError, match=r"scheduler 'own.py:Curve' has a state_dict that check"):
        curve.require_state()
    counting, _, _ = stepped(Method(optimiser=piece("own.py:Counting", folder=tmp_path)))
    with pytest.raises(ModelError, match=r"optimiser 'own.py:Counting' has a state_dict"):
        counting.require_state()


def test_what_does_not_work_is_named(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    with pytest.raises(ModelError, match=r"9: training.optimiser: .*'AdamX'; did you mean 'Adamax"):
        piece("AdamX")
    with pytest.raises(ModelError, match=r"optimiser 'torch.optim:SGD' has no parameter 'mom'"):
        stepped(Method(optimiser=piece("SGD", mom=1)))
    with pytest.raises(ModelError, match=r"'own.py:nothing' gave list, expected torch's Optimizer"):
        stepped(Method(optimiser=piece("own.py:nothing", folder=tmp_path)))
    with pytest.raises(ModelError, match=r"failed in a step in line \d+ of own.py .*no step today"):
        stepped(Method(optimiser=piece("own.py:Loud", folder=tmp_path)))
    with pytest.raises(ModelError, match=r"scheduler 'torch.*StepLR' failed .*step_size"):
        stepped(Method(scheduler=piece("StepLR", "scheduler")))


KEYS = {
    "name": "made",
    "samples": [
        {"name": "signal", "label": 1, "files": ["s.root"]},
        {"name": "background", "label": 0, "files": ["b.root"]},
    ],
}


def config(**training):
    return Config.from_mapping({**KEYS, "training": training})


def test_dataset_yaml_names_the_pieces():
    keys = config(
        optimiser="AdamW",
        scheduler={"callable": "OneCycleLR", "kwargs": {"pct_start": 0.1}, "every": "step"},
        clip_norm=1,
        ema=0.99,
        freeze=["first.*"],
        accumulate=4,
        precision="bfloat16",
    )
    method = method_of(keys)
    assert method.optimiser.code.reference == "torch.optim:AdamW"
    assert method.scheduler.kwargs == {"pct_start": 0.1}
    assert (method.every, method.clip_norm, method.ema) == ("step", 1.0, 0.99)
    assert method.freeze == ("first.*",)
    assert (method.accumulate, method.precision) == (4, "bfloat16")
    assert set(method.codes) == {"optimiser", "scheduler"}
    usual = method_of(config())
    assert usual == Method(usual.loss, scheduler=usual.scheduler)
    assert usual.scheduler.code.reference == "torch.optim.lr_scheduler:OneCycleLR"
    assert usual.is_usual
    assert not method.is_usual
    assert method_of(config(scheduler=None)) == Method(usual.loss)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"monitor": "acu"}, r"expected 'loss', 'auc' or 'accuracy', found 'acu'.*'auc'"),
        ({"optimiser": "Adam W"}, "a name in torch, 'module:callable'"),
        ({"scheduler": {"callable": "StepLR", "kwarg": {}}}, "kwargs"),
        ({"ema": 1.5}, "less than 1"),
        ({"early_stopping": 0}, "at least 1"),
        ({"accumulate": 0}, "at least 1"),
        ({"precision": "float8"}, "'bfloat16'"),
    ],
)
def test_keys_that_cannot_work_are_refused(keys, words):
    with pytest.raises(ConfigError, match=words):
        config(**keys)
