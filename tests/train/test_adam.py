import pytest
import torch

from mlaas4hep_dask.train.adam import Adam


def network() -> torch.nn.Module:
    torch.manual_seed(3)
    return torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.Tanh(), torch.nn.Linear(7, 1))


def learn(model, optimiser, *, steps, seed):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        optimiser.zero_grad()
        model(torch.rand(11, 5, generator=generator)).square().sum().backward()
        optimiser.step()


def test_adam_takes_the_steps_of_torchs_optimiser():
    ours, theirs = network(), network()
    learn(ours, Adam(ours.parameters(), lr=0.01), steps=20, seed=1)
    reference = torch.optim.Adam(theirs.parameters(), lr=0.01, fused=True)
    learn(theirs, reference, steps=20, seed=1)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(next(ours.parameters()), next(network().parameters()))


def test_adam_goes_on_from_its_saved_state():
    whole, broken = network(), network()
    optimiser = Adam(whole.parameters(), lr=0.01)
    learn(whole, optimiser, steps=5, seed=1)
    learn(whole, optimiser, steps=5, seed=2)
    first = Adam(broken.parameters(), lr=0.01)
    learn(broken, first, steps=5, seed=1)
    second = Adam(broken.parameters(), lr=0.01)
    second.load_state_dict(first.state_dict())
    learn(broken, second, steps=5, seed=2)
    for a, b in zip(whole.parameters(), broken.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("used", [0, 1])
def test_adam_leaves_a_parameter_without_gradient_alone(used):
    parameters = [torch.nn.Parameter(torch.ones(3)) for _ in range(2)]
    optimiser = Adam(parameters, lr=0.1)
    optimiser.step()
    (parameters[used] * 2).sum().backward()
    optimiser.step()
    assert torch.equal(parameters[1 - used], torch.ones(3))
    assert torch.allclose(parameters[used], torch.full((3,), 0.9))  # the first step is lr long
