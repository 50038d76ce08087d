"""What needs a GPU: ``python -m pytest tests/train/test_on_gpus.py``, on a machine that has one."""

import os
import threading
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from alone import COLUMNS, Memory, run_epoch, task_of
from test_densify import require_same
from test_uneven import FolderBoard, learn, processes, task_for, weighted

from mlaas4hep_dask.devices import gpus_here
from mlaas4hep_dask.encode import Encoding, encode
from mlaas4hep_dask.specs.measure import measure
from mlaas4hep_dask.train.device_rows import DeviceRows
from mlaas4hep_dask.train.feed import TRAIN, Feed
from mlaas4hep_dask.train.method import Method
from mlaas4hep_dask.train.model import find_model
from mlaas4hep_dask.train.rank import Rank

GPUS = gpus_here()
TWO = 2
CUDA = torch.device("cuda:0")

pytestmark = pytest.mark.skipif(bool(GPUS.error), reason=f"there is no GPU: {GPUS.error}")
of_two = pytest.mark.skipif(len(GPUS.names) < TWO, reason=f"of two GPUs, {len(GPUS.names)} here")


def steady(memory, device, **more):
    """A task without dropout, whose random numbers are other ones on a GPU."""
    model = find_model(
        "mlaas4hep_dask.train.network:mlp",
        {"hidden": [16], "dropout": 0.0},
        resolve=Path,
        where="here",
    )
    return task_of(memory, model=model, device=device, **more)


def test_rows_on_a_gpu_are_those_of_the_kernels(cms_events):
    encoded = encode(cms_events, Encoding.from_specs(measure(cms_events, sample="s")))
    rng = np.random.default_rng(3)
    rows = rng.permutation(len(encoded))
    require_same(encoded, rows, len(rows), rng.permutation(len(rows)), device=CUDA)


def test_windows_are_right_while_the_gpu_is_behind():
    """Steps on a window go on for long after the next window is asked for."""
    memory = Memory(sizes=(3_000, 2_000, 4_000, 1_000))
    assignment = memory.assignments(window_events=500).train
    facts = {"rank": 0, "split": TRAIN, "row_shape": (COLUMNS,), "with_missing": True}
    arrays = Feed(memory, assignment, **facts)
    tensors = Feed(memory, assignment, **facts, rows=partial(DeviceRows, device=CUDA))
    load = torch.rand(4096, 4096, device=CUDA)
    copies = []
    for window in tensors.windows(1):
        for _ in range(5):
            load = torch.nn.functional.normalize(load @ load)
        copies.append((window.x.clone(), window.missing.clone(), window.y))
    assert len(copies) == assignment.num_windows > 10
    for (x, missing, y), window in zip(copies, arrays.windows(1), strict=True):
        np.testing.assert_array_equal(x.cpu(), window.x)
        np.testing.assert_array_equal(missing.cpu(), window.missing)
        np.testing.assert_array_equal(y, window.y)


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-4), ("bfloat16", 0.05)])
def test_a_gpu_learns_what_a_cpu_learns(precision, tolerance):
    memory, losses = Memory(), {}
    for device in ("cpu", "cuda:0"):
        method = Method(precision=precision if device != "cpu" else "float32", ema=0.9)
        rank = Rank(steady(memory, device, method=method), None)
        results = [run_epoch(rank, memory, epoch) for epoch in (1, 2, 3)]
        losses[device] = [
            [split.loss for split in result.splits.values()] for result in results
        ] + [[rank.measure(memory, "test").loss] * 2]
    np.testing.assert_allclose(losses["cuda:0"], losses["cpu"], rtol=tolerance)
    assert losses["cpu"][2][0] < losses["cpu"][0][0]  # it learns


@pytest.mark.parametrize("way", [("cuda:0", "cpu"), ("cpu", "cuda:0"), ("cuda:0", "cuda:0")])
def test_a_run_goes_on_on_another_device_also_within_an_epoch(way):
    memory, (first, second) = Memory(), way
    whole = run_epoch(Rank(steady(memory, second), None), memory, 1)
    part = Rank(steady(memory, first), None).run_epoch(memory, lambda _: None, 1, 0.0)
    assert part.part is not None
    rest = run_epoch(Rank(steady(memory, second), part.state, [part.part]), memory, 1)
    for name, split in rest.splits.items():
        assert split.loss == pytest.approx(whole.splits[name].loss, rel=1e-4)


@of_two
@pytest.mark.timeout(180)
def test_two_gpus_learn_what_one_cpu_learns(tmp_path):
    memory, found = weighted(), {}
    with ProcessPoolExecutor(TWO, mp_context=processes()) as pool:
        for devices in (["cpu"], ["cuda:0", "cuda:1"]):
            folder = tmp_path / str(len(devices))
            folder.mkdir()
            futures = [
                pool.submit(learn, memory, str(folder), None, rank, len(devices), device=device)
                for rank, device in enumerate(devices)
            ]
            results = [future.result() for future in futures]
            for records, parameters in results:
                assert records == results[0][0]
                np.testing.assert_array_equal(parameters, results[0][1])
            found[len(devices)] = results[0][0]
    np.testing.assert_allclose(found[2], found[1], rtol=1e-4)


def sum_while_one_dies(memory, folder, rank):
    """How a sum over ranks on GPUs ends of which one has ended."""
    own = Rank(task_for(memory, rank, TWO, device=f"cuda:{rank}"), None)
    own.join(FolderBoard(folder), None)
    if rank == 1:
        os._exit(1)
    threading.Timer(1.0, own.group.abandon).start()
    ones = torch.ones(1, device=f"cuda:{rank}")
    words = "no error"
    try:
        for _ in range(TWO):  # the first may end without a word, and with any numbers
            torch.distributed.all_reduce(ones)
            float(ones)
    except RuntimeError as error:
        words = str(error)
    FolderBoard(folder).leave(f"left-{rank}", words.encode())


@of_two
@pytest.mark.timeout(120)
def test_a_rank_leaves_a_sum_on_gpus_when_it_is_told(tmp_path):
    ranks = [
        processes().Process(target=sum_while_one_dies, args=(weighted(), str(tmp_path), rank))
        for rank in range(TWO)
    ]
    for rank in ranks:
        rank.start()
    ranks[0].join(60)
    for rank in ranks:
        rank.kill()
        rank.join()
    words = FolderBoard(tmp_path).find("left-0")
    assert words not in (None, b"no error")
