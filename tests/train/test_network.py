"""The networks that are there by default and by name."""

import math

import pytest
import torch
from paths import TUTORIAL

from mlaas4hep_dask.config import Config, load
from mlaas4hep_dask.run.method import method_of
from mlaas4hep_dask.run.stages import model_of
from mlaas4hep_dask.train.network import MOST_WITH_WAVES, Waves, dense
from mlaas4hep_dask.train.stepping import Stepper

SAMPLES = {
    "samples": [{"name": name, "label": k, "files": "a.root"} for k, name in enumerate("ab")]
}


def parts_of(network):
    return [type(part).__name__ for part in network]


def test_the_score_of_an_event_does_not_depend_on_the_others():
    """So that ranks with a part of a batch each learn what one learns from all of it."""
    torch.manual_seed(0)
    network = dense(5, dropout=0.0).train()
    x = torch.randn(40, 5)
    torch.testing.assert_close(network(x), torch.cat([network(part) for part in x.split(7)]))
    assert not list(network.buffers())


def test_waves_are_cosines_beside_the_values_and_nothing_where_nothing_is():
    waves = Waves(2, 3)
    with torch.no_grad():
        waves.gains.copy_(torch.tensor([[0.5], [2.0]]))
    x = torch.tensor([[0.5, -1.0], [0.0, 0.0]])
    found, missing = waves(x).tolist()
    assert found[:2] == x[0].tolist()
    assert missing == [0.0] * 8
    frequencies, phases = waves.frequencies.tolist(), waves.phases.tolist()
    expected = [
        gain * (math.cos(value * frequency + phase) - math.cos(phase))
        for value, gain, *of_column in zip(
            x[0].tolist(), (0.5, 2.0), frequencies, phases, strict=True
        )
        for frequency, phase in zip(*of_column, strict=True)
    ]
    assert found[2:] == pytest.approx(expected, abs=1e-6)


def test_wide_rows_have_no_waves():
    assert parts_of(dense(MOST_WITH_WAVES))[0] == "Waves"
    assert parts_of(dense(MOST_WITH_WAVES + 1))[0] == "Linear"
    assert parts_of(dense(3, waves=0))[0] == "Linear"


def test_as_many_outputs_as_asked():
    assert dense(3, num_outputs=4)(torch.zeros(2, 3)).shape == (2, 4)


def test_without_a_word_the_default_network_learns_by_adamw_in_one_cycle():
    config = Config.from_mapping(SAMPLES)
    assert parts_of(model_of(config).build(3))[0] == "Waves"
    rate = config.training.learning_rate
    stepper = Stepper(
        torch.nn.Linear(2, 1), method_of(config), learning_rate=rate, steps=10, epochs=2
    )
    assert isinstance(stepper.optimiser, torch.optim.AdamW)
    rates = []
    for _ in range(20):
        rates.append(stepper.learning_rate)
        stepper.step()
    assert max(rates) == pytest.approx(rate, rel=1e-3)
    assert rates.index(max(rates)) == 5  # 0.3 of 20 steps, which count from 0
    assert rates[0] == pytest.approx(rate / 25)
    assert rates[-1] == pytest.approx(rate / 25 / 1e4)


def test_the_published_network_and_its_training_have_a_file():
    config = load(TUTORIAL / "published.yaml", [])
    network, method = model_of(config).build(3), method_of(config)
    assert parts_of(network) == ["Linear", "ReLU", "Dropout"] * 2 + ["Linear"]
    assert [part.out_features for part in network if hasattr(part, "out_features")] == [128, 64, 1]
    assert [part.fraction for part in network if hasattr(part, "fraction")] == [0.5, 0.5]
    keys = config.training
    assert (keys.epochs, keys.batch_size, keys.learning_rate) == (5, 100, 1e-3)
    stepper = Stepper(network, method, learning_rate=keys.learning_rate)
    assert type(stepper.optimiser) is torch.optim.Adam
    before = stepper.learning_rate
    stepper.step()
    assert stepper.learning_rate == before
