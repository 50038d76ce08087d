import numpy as np
import pytest
import torch

from mlaas4hep_dask.train.feed import Window
from mlaas4hep_dask.train.sample import Sample
from mlaas4hep_dask.train.within import Within, own_buffers

COLUMNS = 3


def new():
    return Within(2, Sample(100, 40, (COLUMNS,)))


def window_of(rng, size):
    x = rng.normal(size=(size, COLUMNS)).astype(np.float32)
    y, w = rng.random((2, size)).astype(np.float32)
    return Window(x, None, y, w, np.zeros(1, np.int64), np.zeros(0, np.int64))


@pytest.fixture
def states():
    """What three ranks have left after two windows."""
    rng = np.random.default_rng(1)
    left = []
    for rank in range(3):
        within = new()
        for _ in range(2):
            window = window_of(rng, 10)
            within.sample.add(window)
            within.window += 1
            within.num_learnt += len(window.y)
            within.loss_sums += rng.random(2)
        buffers = [torch.full((4,), float(rank)), torch.tensor(7 + rank)]
        left.append({**within.state(), "num_ranks": 3, "buffers": buffers})
    return left


def gone_on(states, rank, num_ranks):
    within = new()
    within.take_up(states, rank, num_ranks)
    return within


def test_a_rank_goes_on_from_what_it_has_left(states):
    for rank, state in enumerate(states):
        within = gone_on([state], rank, 3)
        again = within.state()
        for name, array in again.pop("sample").items():
            assert torch.equal(torch.as_tensor(array), torch.as_tensor(state["sample"][name]))
        assert again == {name: state[name] for name in again}
        assert own_buffers([state], 3) is state["buffers"]


@pytest.mark.parametrize("num_ranks", [1, 2, 4])
def test_another_number_of_ranks_has_the_same_sums_and_the_same_sample(states, num_ranks):
    ranks = [gone_on(states, rank, num_ranks) for rank in range(num_ranks)]
    assert {(within.epoch, within.window) for within in ranks} == {(2, 2)}
    assert sum(within.num_learnt for within in ranks) == 60
    sums = sum(within.loss_sums for within in ranks)
    np.testing.assert_allclose(sums, np.sum([state["loss_sums"] for state in states], axis=0))
    kept = [within.sample.window() for within in ranks]
    found = np.concatenate([window.y for window in kept if window is not None])
    expected = np.concatenate([state["sample"]["y"].numpy() for state in states])
    assert sorted(found) == sorted(expected)
    assert own_buffers(states, num_ranks)[0].tolist() == [1.0] * 4
    assert own_buffers(states, num_ranks)[1].item() == 7  # as a count of steps
