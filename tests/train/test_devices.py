"""Which rank computes on what, and that the way of a GPU gives what that of the CPU gives."""

import io
from collections import OrderedDict
from dataclasses import replace
from functools import partial
from itertools import permutations

import numpy as np
import pytest
import torch
from alone import Memory, run_epoch, task_of
from hypothesis import given
from hypothesis import strategies as st
from strategies import num_examples
from test_learner import parameters_of, window_of
from test_learner import task_of as learner_task
from test_method import piece
from torch.distributed import PrefixStore

from mlaas4hep_dask.config import Config
from mlaas4hep_dask.devices import Gpus, choose, gpu_lacking, gpus_here
from mlaas4hep_dask.errors import ModelError, TrainingError
from mlaas4hep_dask.objective import BINARY, Regression
from mlaas4hep_dask.run.facts import keys_of
from mlaas4hep_dask.train.device_rows import DeviceRows
from mlaas4hep_dask.train.elsewhere import learn_on
from mlaas4hep_dask.train.given import Given
from mlaas4hep_dask.train.group import backend_of, variables
from mlaas4hep_dask.train.learner import LOOK_EVERY, Learner
from mlaas4hep_dask.train.meeting import BoardStore
from mlaas4hep_dask.train.method import Method
from mlaas4hep_dask.train.model import find_model
from mlaas4hep_dask.train.rank import Rank, load_state, on_cpu

NONE = Gpus(error="PyTorch 2.13.0+cpu was built without CUDA")
CUDA = torch.device("cuda:0")


def gpus(ids):
    return Gpus(tuple(f"H{each}" for each in ids), tuple(ids))


def chosen(wish, *seen):
    return choose(wish, seen, [f"rank {rank}'s worker" for rank in range(len(seen))])


@pytest.mark.parametrize(
    ("seen", "devices"),
    [
        (["a"], ["cuda:0"]),
        (["a", "b"], ["cuda:0", "cuda:0"]),  # each has what its job was given
        (["ab", "ab"], ["cuda:0", "cuda:1"]),  # several on one node, which see all of them
        (["ab", "a"], ["cuda:1", "cuda:0"]),
        (["ab", "cd", "ab", "cd"], ["cuda:0", "cuda:0", "cuda:1", "cuda:1"]),
        (["ba", "b"], ["cuda:1", "cuda:0"]),  # CUDA_VISIBLE_DEVICES=1,0 and 1
    ],
)
@pytest.mark.parametrize("wish", ["auto", "cuda"])
def test_every_rank_has_a_gpu_of_its_own(wish, seen, devices):
    choice = chosen(wish, *map(gpus, seen))
    assert sorted(choice.devices) == sorted(devices)
    held = [
        sees[int(device.removeprefix("cuda:"))]
        for sees, device in zip(seen, choice.devices, strict=True)
    ]
    assert len(set(held)) == len(seen)
    assert choice.words == "every rank has a GPU: " + ", ".join(f"H{gpu}" for gpu in held)
    assert choice.caution == ""


@given(st.lists(st.sets(st.sampled_from("abcd"), min_size=1), min_size=1, max_size=4))
@num_examples(100)
def test_ranks_share_gpus_out_if_there_is_any_way_to(seen):
    is_possible = any(
        all(gpu in sees for gpu, sees in zip(way, seen, strict=True))
        for way in permutations("abcd", len(seen))
    )
    choice = chosen("auto", *(gpus(sorted(sees)) for sees in seen))
    assert (choice.devices != ("cpu",) * len(seen)) == is_possible
    assert bool(choice.caution) != is_possible


@pytest.mark.parametrize(
    ("seen", "words", "is_idle"),
    [
        ([NONE], "rank 0's worker has no GPU: PyTorch 2.13.0+cpu was built without CUDA", False),
        ([gpus("a"), NONE], "rank 1's worker has no GPU: PyTorch 2.13.0+cpu was built", True),
        ([gpus("ab")] * 3, "the 3 ranks see 2 GPUs that they can share out", True),
        ([gpus("a")] * 2, "see 1 GPU that they can share out, and each needs its own; tra", True),
    ],
)
def test_ranks_without_a_gpu_are_an_error_or_all_compute_on_cpus(seen, words, is_idle):
    with pytest.raises(TrainingError, match=r"training\.device is cuda, but") as caught:
        chosen("cuda", *seen)
    assert words in str(caught.value)
    choice = chosen("auto", *seen)
    assert choice.devices == ("cpu",) * len(seen)
    assert words in choice.words
    assert choice.caution == (f"training.device: auto leaves GPUs idle: {choice.words}" * is_idle)


def test_a_wish_for_cpus_looks_at_no_gpu():
    assert chosen("cpu", gpus("a"), gpus("b")).devices == ("cpu", "cpu")


@pytest.mark.skipif(torch.version.cuda is not None, reason="this torch was built for CUDA")
def test_a_torch_without_cuda_says_so():
    words = f"PyTorch {torch.__version__} was built without CUDA"
    assert gpus_here() == Gpus(error=words)
    assert gpu_lacking() == f"training.device is cuda, and there is no GPU: {words}"


def test_a_run_may_go_on_on_another_device():
    samples = [{"name": name, "label": n, "files": f"{name}.root"} for n, name in enumerate("ab")]
    keys = [
        keys_of(Config.from_mapping({"samples": samples, "training": {"device": device}}))
        for device in ("auto", "cpu", "cuda")
    ]
    assert keys[0] == keys[1] == keys[2]


# ---- The way of a GPU, on the CPU


class ByTensors(Rank):
    """A rank whose rows are made by torch, as on a GPU, and that looks at losses as seldom."""

    _rows = partial(DeviceRows, device=torch.device("cpu"))

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.learner._look_every = LOOK_EVERY


MODELS = {
    "rows": ("mlaas4hep_dask.train.network:mlp", {"hidden": [4]}),
    "mask": ("networks.py:masked", {}),
}
NETWORKS = """
import torch

class Masked(torch.nn.Module):
    def __init__(self, num_columns):
        super().__init__()
        self.norm = torch.nn.BatchNorm1d(2 * num_columns)
        self.linear = torch.nn.Linear(2 * num_columns, 1)

    def forward(self, x, missing):
        return self.linear(self.norm(torch.cat([x, missing.float()], dim=1)))

def masked(num_columns):
    return Masked(num_columns)

class Careless(torch.nn.Module):
    def __init__(self, num_columns):
        super().__init__()
        self.linear = torch.nn.Linear(num_columns, 1)
        self.scale = torch.full((num_columns,), 2.0)

    def forward(self, x):
        return self.linear(x * self.scale)

def careless(num_columns):
    return Careless(num_columns)
"""


def model_of(folder, name, kwargs):
    (folder / "networks.py").write_text(NETWORKS)
    return find_model(name, kwargs, resolve=lambda path: folder / path, where="here")


@pytest.mark.parametrize("which", MODELS)
@pytest.mark.parametrize("options", [{}, {"ema": 0.9, "accumulate": 2}])
def test_an_epoch_by_tensors_is_that_by_arrays_to_the_last_bit(tmp_path, which, options):
    memory = Memory()
    more = {"model": model_of(tmp_path, *MODELS[which]), "method": Method(**options)}
    found = []
    for kind in (Rank, ByTensors):
        rank = kind(task_of(memory, **more), None)
        results = [run_epoch(rank, memory, epoch) for epoch in (1, 2)]
        found.append((results, rank.measure(memory, "test")))
    (arrays, test), (tensors, same_test) = found
    assert same_test == test
    for ours, theirs in zip(tensors, arrays, strict=True):
        assert ours.splits == theirs.splits
        assert ours.state == theirs.state


def test_an_epoch_by_tensors_goes_on_from_its_middle(tmp_path):
    memory = Memory()
    whole = run_epoch(ByTensors(task_of(memory), None), memory, 1)
    rank = ByTensors(task_of(memory), None)
    part = rank.run_epoch(memory, lambda _: None, 1, 0.0)
    assert part.part is not None
    last = ByTensors(task_of(memory), part.state, [part.part])
    assert run_epoch(last, memory, 1).splits == whole.splits


def test_who_looks_seldom_is_told_of_a_loss_that_is_not_finite():
    learner = Learner(learner_task(Method()))
    learner._look_every = 5
    window = window_of(learner.task)
    steps = list(learner.learn(window, window.w))
    bounds = window.bounds.tolist()
    assert [end for _, end in steps] == [bounds[5], bounds[-1]]
    often = Learner(learner_task(Method()))
    assert sum(loss for loss, _ in often.learn(window, window.w)) == sum(loss for loss, _ in steps)
    assert torch.equal(parameters_of(learner), parameters_of(often))
    window.x[-1] = np.inf
    with pytest.raises(TrainingError, match="the loss is not finite"):
        list(learner.learn(window, window.w))


@pytest.mark.parametrize(
    ("options", "more"),
    [
        ({}, {}),
        ({"accumulate": 2, "clip_norm": 1.0, "ema": 0.9}, {}),
        ({"scheduler": piece("OneCycleLR", "scheduler")}, {}),
        ({}, {"objective": Regression(("a",), (1.0,), (2.0,))}),
        ({}, {"balance": (1.0, 2.0)}),
    ],
)
def test_steps_on_a_device_mix_no_devices_and_wait_for_nothing_but_the_last(options, more):
    """torch's device without memory refuses to be mixed with others, as a GPU, and to be read."""
    method = Method(optimiser=piece("SGD"), **options)
    learner = Learner(learner_task(method, device="meta", **more))
    window = window_of(learner.task)
    if "objective" in more:
        window = replace(window, y=window.y[:, None])
    with pytest.raises(RuntimeError, match="item"):
        list(learner.learn(window, window.w))
    assert all(p.grad.is_meta for p in learner.parameters())
    steps = (len(window.bounds) - 1) // method.accumulate
    assert learner.hooks.context.step == steps - 1 >= 3  # all but the last are taken


def test_a_network_that_keeps_tensors_elsewhere_is_named_before_training(tmp_path):
    x = torch.zeros(3, 2)
    events = (x, x > 0, torch.ones(3), torch.ones(3))
    for which in MODELS.values():
        learn_on("meta", model_of(tmp_path, *which), Given((2,)), BINARY, Method(), events)
    careless = model_of(tmp_path, "networks.py:careless", {})
    with pytest.raises(ModelError, match=r"fails on meta, .*in line 23 of networks.py"):
        learn_on("meta", careless, Given((2,)), BINARY, Method(), events)


def test_a_checkpoint_is_of_the_cpu_and_keeps_what_torch_notes_on_it():
    network = torch.nn.BatchNorm1d(2)
    state = {"network": network.state_dict(), "steps": [1, (torch.ones(2), None)]}
    same = on_cpu(state)
    assert isinstance(same["network"], OrderedDict)
    assert same["network"]._metadata == state["network"]._metadata
    assert same["network"]["weight"] is state["network"]["weight"]
    buffer = io.BytesIO()
    torch.save(same, buffer)
    assert load_state(buffer.getvalue())["steps"][1][1] is None


# ---- What ranks meet by


@pytest.mark.parametrize(
    ("host", "device", "expected"),
    [
        ("127.0.0.1", "cpu", {"GLOO_SOCKET_IFNAME": "lo"}),
        ("no-such-host.invalid", "cpu", {}),
        (
            "127.0.0.1",
            "cuda:1",
            {
                "GLOO_SOCKET_IFNAME": "lo",
                "NCCL_SOCKET_IFNAME": "=lo",
                "TORCH_NCCL_ASYNC_ERROR_HANDLING": "2",
            },
        ),
        ("no-such-host.invalid", "cuda:0", {"TORCH_NCCL_ASYNC_ERROR_HANDLING": "2"}),
    ],
)
def test_ranks_talk_through_the_interface_of_their_host(host, device, expected):
    assert variables(host, torch.device(device)) == expected


def test_gradients_on_gpus_go_by_nccl_and_all_else_by_gloo():
    assert backend_of(torch.device("cpu")) == "gloo"
    assert backend_of(CUDA) == "cpu:gloo,cuda:nccl"


class Words(dict):
    """A board of one rank."""

    leave, find, clear = dict.__setitem__, dict.get, dict.clear


def test_torch_uses_the_board_as_a_store():
    """As NCCL's threads do, from C++ and under a prefix."""
    store = BoardStore(Words(), rank=0, timeout=None, is_abandoned=lambda: False)
    prefixed = PrefixStore("nccl", store)
    prefixed.set("a", b"1")
    assert (prefixed.check(["a"]), prefixed.check(["a", "b"])) == (True, False)
    assert prefixed.clone().get("a") == b"1"
