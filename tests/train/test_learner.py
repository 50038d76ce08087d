from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from test_method import piece

from mlaas4hep_dask.errors import ModelError
from mlaas4hep_dask.objective import BINARY
from mlaas4hep_dask.train.arithmetic import Arithmetic
from mlaas4hep_dask.train.assign import Assignments, assign
from mlaas4hep_dask.train.feed import Window
from mlaas4hep_dask.train.given import Given
from mlaas4hep_dask.train.grouping import groups
from mlaas4hep_dask.train.learner import Learner
from mlaas4hep_dask.train.method import Method
from mlaas4hep_dask.train.model import ModelSource
from mlaas4hep_dask.train.session import RankTask
from mlaas4hep_dask.usercode import find_code

COLUMNS, EVENTS = 5, 96


def task_of(method, *, batch_size=12, num_ranks=1, mean_weight=1.3, **more):
    """What the first rank of a training of a small network is told."""
    sizes = [("s", EVENTS)]
    assignment = assign(sizes, ranks=num_ranks, batch_size=batch_size, window_events=EVENTS, seed=1)
    facts = {
        "session": "test",
        "rank": 0,
        "num_ranks": num_ranks,
        "host": "",
        "model": ModelSource(
            find_code("mlaas4hep_dask.train.network:mlp", resolve=Path),
            {"hidden": [4], "dropout": 0.0},
        ),
        "given": Given((COLUMNS,)),
        "learning_rate": 0.5,
        "seed": 3,
        "mean_weight": mean_weight,
        "assignments": Assignments(assignment, assignment, assignment),
        "objective": BINARY,
        "method": method,
    }
    return RankTask(**{**facts, **more})


def window_of(task, size=EVENTS):
    """All events of the first rank, with weights of both signs."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=(size, COLUMNS)).astype(np.float32)
    y = (x[:, 0] > 0).astype(np.float32)
    w = rng.normal(1.0, 1.0, size).astype(np.float32)
    train = task.assignments.train
    return Window(x, None, y, w, train.batch_bounds(0, 0), train.step_sizes(0))


def learnt(task, window=None):
    learner = Learner(task)
    window = window or window_of(task)
    steps = list(learner.learn(window, window.w))
    return learner, steps


def parameters_of(learner):
    return torch.cat([p.detach().flatten() for p in learner.network.parameters()])


@pytest.mark.parametrize("accumulate", [2, 4, 8])
def test_gradients_of_some_batches_make_the_step_of_one_that_is_as_large(accumulate):
    sgd = piece("SGD")
    several = task_of(Method(optimiser=sgd, accumulate=accumulate))
    one = task_of(Method(optimiser=sgd), batch_size=12 * accumulate)
    first, steps = learnt(several)
    second, larger = learnt(one)
    assert len(steps) == accumulate * len(larger) == 8
    assert [end for _, end in steps] == list(range(12, EVENTS + 1, 12))
    torch.testing.assert_close(parameters_of(first), parameters_of(second))
    assert sum(loss for loss, _ in steps) == pytest.approx(sum(loss for loss, _ in larger))
    other, _ = learnt(task_of(Method(optimiser=sgd)))
    assert not torch.allclose(parameters_of(first), parameters_of(other))


def test_batches_of_other_sizes_count_by_their_events():
    """The step is that of the mean over all events of a group, not of the means of its batches."""
    task = task_of(Method(optimiser=piece("SGD"), accumulate=3))
    whole = window_of(task)
    uneven = Window(
        whole.x, None, whole.y, whole.w, np.array([0, 50, 53, 96]), np.array([50, 3, 43])
    )
    together = Window(whole.x, None, whole.y, whole.w, np.array([0, 96]), np.array([96]))
    torch.testing.assert_close(
        parameters_of(learnt(task, uneven)[0]), parameters_of(learnt(task, together)[0])
    )


def test_the_schedule_counts_steps_and_not_batches():
    cycle = piece("OneCycleLR", "scheduler")
    task = task_of(Method(scheduler=cycle, accumulate=4), epochs=2)
    learner, _ = learnt(task)
    assert learner.stepper.state()["scheduler"]["total_steps"] == 4
    assert learner.stepper.state()["scheduler"]["_step_count"] == 1 + 2


@pytest.mark.parametrize(
    ("num_batches", "accumulate", "sizes"),
    [(0, 3, []), (1, 3, [1]), (6, 3, [3, 3]), (7, 3, [2, 2, 3]), (5, 1, [1] * 5), (4, 9, [4])],
)
def test_the_batches_of_a_window_are_in_groups_as_equal_as_can_be(num_batches, accumulate, sizes):
    found = groups(num_batches, accumulate)
    assert list(map(len, found)) == sizes
    assert [batch for group in found for batch in group] == list(range(num_batches))


class Lonely(torch.nn.parallel.DistributedDataParallel):
    """One that has no others, and writes down for which batches it would ask them."""

    def __init__(self, network):
        torch.nn.Module.__init__(self)
        self.network = network
        self.is_alone = False
        self.asked = []

    def forward(self, *inputs):
        self.asked.append(not self.is_alone)
        return self.network(*inputs)

    @contextmanager
    def no_sync(self):
        self.is_alone = True
        yield
        self.is_alone = False


def test_ranks_exchange_gradients_once_for_every_step():
    task = task_of(Method(accumulate=3))
    learner = Learner(task)
    learner.wrapped = Lonely(learner.network)
    window = window_of(task)
    assert len(list(learner.learn(window, window.w))) == 8
    assert learner.wrapped.asked == [False, True, False, False, True, False, False, True]


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_a_lower_precision_learns_nearly_the_same_and_keeps_parameters_of_32_bits(precision):
    adam = piece("Adam")
    exact, steps = learnt(task_of(Method(optimiser=adam), learning_rate=0.02))
    coarse, others = learnt(
        task_of(Method(optimiser=adam, precision=precision, clip_norm=10.0), learning_rate=0.02)
    )
    found, expected = parameters_of(coarse), parameters_of(exact)
    assert found.dtype == torch.float32
    assert not torch.equal(found, expected)
    torch.testing.assert_close(found, expected, rtol=0, atol=0.02)
    losses = [np.array([loss for loss, _ in each]) for each in (steps, others)]
    np.testing.assert_allclose(losses[1], losses[0], rtol=0.02, atol=0.02)


def test_what_is_measured_is_that_of_the_exported_network_in_32_bits():
    task = task_of(Method(precision="bfloat16"))
    learner, window = Learner(task), window_of(task)
    learner.network.eval()
    output, _ = learner.outputs(window, window.w)
    with torch.no_grad():
        expected = learner.network(torch.from_numpy(window.x))
    np.testing.assert_array_equal(output, expected.numpy().reshape(output.shape))


def test_gradients_that_are_too_large_for_float16_are_left_out_and_scaled_by_less():
    method = Method(optimiser=piece("SGD"), precision="float16", ema=0.9)
    task = task_of(method, mean_weight=1e-6)  # which multiplies the gradients
    learner = Learner(task)
    before, window = parameters_of(learner), window_of(task)
    next(learner.learn(window, window.w))
    assert torch.equal(parameters_of(learner), before)
    state = learner.state()
    assert state["scaler"]["scale"] < 65536
    assert int(state["num_averaged"]) == 0
    other = Learner(task)
    other.take_up(state)
    assert other.state()["scaler"] == state["scaler"]


def test_a_precision_that_the_device_lacks_is_refused():
    with pytest.raises(ModelError, match=r"float16 does not work on this meta .* bfloat16 or"):
        Arithmetic("float16", "meta")
