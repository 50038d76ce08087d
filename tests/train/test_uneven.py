"""Batches that ranks do not share evenly: the step is that of the whole batch all the same."""

import os
import re
import threading
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import cache
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch
from alone import COLUMNS, Memory, task_of
from services.processes import wait_until
from test_method import piece

from mlaas4hep_dask.journal import SPLITS
from mlaas4hep_dask.train.exchange import SharedMemory, SharedMemoryExchange
from mlaas4hep_dask.train.feed import Feed
from mlaas4hep_dask.train.learner import Learner
from mlaas4hep_dask.train.method import Method
from mlaas4hep_dask.train.model import find_model
from mlaas4hep_dask.train.rank import Rank

BATCH, EPOCHS = 22, 3  # events over all ranks: 4 ranks have 5 or 6 each


def weighted():
    """Blocks whose weights have both signs."""
    memory, rng = Memory(), np.random.default_rng(7)
    memory.blocks = [
        replace(block, w=rng.normal(1.0, 1.0, len(block.w)).astype(np.float32))
        for block in memory.blocks
    ]
    return memory


def task_for(memory, rank, num_ranks, **more):
    """A network without dropout, which is drawn by each rank."""
    facts = {
        "rank": rank,
        "num_ranks": num_ranks,
        "assignments": memory.assignments(ranks=num_ranks, batch_size=BATCH),
        "model": find_model(
            "mlaas4hep_dask.train.network:mlp",
            {"hidden": [8], "dropout": 0.0},
            resolve=Path,
            where="here",
        ),
        "mean_weight": 1.3,
    }
    return task_of(memory, **{**facts, **more})


def rows_of(task, memory):
    """The windows of a rank, each with its own arrays."""
    feed = Feed(memory, task.assignments.train, rank=task.rank, split=0, row_shape=(COLUMNS,))
    return [replace(window, x=window.x.copy()) for window in feed.windows(1)]


def flat(tensors):
    return torch.cat([tensor.detach().flatten() for tensor in tensors]).double()


@cache
def gradients(num_ranks):
    """By step: the mean over ranks of their gradients, that of all events, and events by rank."""
    memory, found = weighted(), []
    standing_still = Method(optimiser=piece("SGD"))  # with steps of size 0
    tasks = [
        task_for(memory, rank, num_ranks, method=standing_still, learning_rate=0.0)
        for rank in range(num_ranks)
    ]
    learners = [Learner(task) for task in tasks]
    network = Learner(tasks[0]).network.double()
    for windows in zip(*(rows_of(task, memory) for task in tasks), strict=True):
        steps = [learner.learn(w, w.w) for learner, w in zip(learners, windows, strict=True)]
        for number, _ in enumerate(zip(*steps, strict=True)):
            mean = sum(flat(p.grad for p in learner.parameters()) for learner in learners)
            parts = [(w, slice(w.bounds[number], w.bounds[number + 1])) for w in windows]
            x, y, w = (
                torch.from_numpy(np.concatenate([getattr(w, name)[part] for w, part in parts]))
                for name in "xyw"
            )
            losses = torch.nn.functional.binary_cross_entropy_with_logits(
                network(x.double()).flatten(), y.double(), reduction="none"
            )
            network.zero_grad()
            ((w.double() * losses).sum() / (len(w) * tasks[0].mean_weight)).backward()
            expected = flat(p.grad for p in network.parameters())
            assert windows[0].step_sizes[number] == len(w)
            sizes = [part.stop - part.start for _, part in parts]
            found.append((mean / num_ranks, expected, sizes))
    return found


@pytest.mark.parametrize("num_ranks", [1, 2, 4])
def test_the_mean_of_the_gradients_of_ranks_is_that_of_all_events(num_ranks):
    """A gradient of single precision is a sum of some tens of products, each rounded at 2**-24."""
    uneven = 0
    for mean, expected, sizes in gradients(num_ranks):
        largest = float(expected.abs().max())
        torch.testing.assert_close(mean, expected, rtol=0, atol=100 * 2**-24 * largest)
        uneven += max(sizes) != min(sizes)
    assert uneven > 0 or num_ranks == 1
    assert len({sum(sizes) for _, _, sizes in gradients(num_ranks)}) > 1  # the last is smaller


@pytest.mark.parametrize("num_ranks", [2, 4])
def test_batches_have_the_same_events_whatever_the_number_of_ranks(num_ranks):
    for (_, one, _), (_, several, _) in zip(gradients(1), gradients(num_ranks), strict=True):
        torch.testing.assert_close(one, several, rtol=1e-12, atol=1e-12)


class FolderBoard:
    """Words in files."""

    def __init__(self, folder):
        self._folder = Path(folder)

    def leave(self, name, words):
        path = self._folder / name.replace("/", "-")
        path.with_suffix(".part").write_bytes(words)
        path.with_suffix(".part").rename(path)

    def find(self, name):
        path = self._folder / name.replace("/", "-")
        return path.read_bytes() if path.exists() else None

    def clear(self):
        """The folder is this meeting's alone."""

    def tell(self, facts):
        raise AssertionError(f"a rank hangs: {facts}")


def processes():
    """Makes processes of one that has imported all that ranks need."""
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__, "torch._dynamo"])
    return context


def learn(memory, folder, path, rank, num_ranks, **more):
    """What a rank measures after each epoch, and its parameters at the end."""
    learner = Rank(task_for(memory, rank, num_ranks, **more), None)
    learner.join(FolderBoard(folder), path)
    assert (learner.group.exchange is not None) == (path is not None)
    results = [learner.run_epoch(memory, lambda _: None, n) for n in range(1, EPOCHS + 1)]
    learner.group.close()
    records = [
        [
            result.splits[SPLITS[0]].values["learning_loss"],
            *(result.splits[name].loss for name in SPLITS[:2]),
        ]
        for result in results
    ]
    return records, flat(learner.learner.parameters()).cpu().numpy()


def wait_while_one_dies(memory, folder, rank, num_ranks):
    """How a wait of torch's for a rank ends which waits, in turn, for one that has ended."""
    learner = Rank(task_for(memory, rank, num_ranks), None)
    learner.join(FolderBoard(folder), None)
    values = torch.zeros(1)
    if rank == 1:
        os._exit(1)
    if rank == 3:  # its neighbours in the ring, 0 and 2, know and have left
        threading.Timer(1.0, learner.group.abandon).start()
    try:
        torch.distributed.all_reduce(values)
    except RuntimeError as error:
        words = str(error)
    else:
        words = "no error"
    FolderBoard(folder).leave(f"left-{rank}", words.encode())
    threading.Event().wait()  # its connections stay open


@pytest.mark.ddp
@pytest.mark.timeout(180)
def test_one_two_and_four_ranks_learn_the_same(tmp_path):
    """Sums of single precision are formed in another order: 2**-24 of each gradient per step.

    Adam makes a step of the size of the learning rate, 0.01, of each: after 87 a parameter may
    differ by 87 x 0.01 x 2**-24 times some tens, about 1e-6.
    """
    events, found = weighted(), {}
    with ProcessPoolExecutor(4, mp_context=processes()) as pool:
        for num_ranks, is_shared in ((1, False), (2, True), (4, True), (4, False)):
            folder = tmp_path / f"{num_ranks}-{is_shared}"
            folder.mkdir()
            num_values = Rank(task_for(events, 0, num_ranks), None).facts().num_values
            sizes = {"num_ranks": num_ranks, "capacity": num_values}
            memory = SharedMemory.create(SharedMemoryExchange.nbytes(**sizes))
            path = memory.path if is_shared and memory else None
            futures = [
                pool.submit(learn, events, str(folder), path, rank, num_ranks)
                for rank in range(num_ranks)
            ]
            results = [future.result() for future in futures]
            for records, parameters in results:  # all ranks have the same to the last bit
                assert records == results[0][0]
                np.testing.assert_array_equal(parameters, results[0][1])
            found[num_ranks, is_shared] = results[0]
            if memory:
                memory.close()
    records, parameters = found[1, False]
    assert records[-1][0] < 0.8 * records[0][0]  # it learns
    for others, theirs in found.values():
        np.testing.assert_allclose(others, records, rtol=1e-6)
        np.testing.assert_allclose(theirs, parameters, rtol=0, atol=1e-6)


@pytest.mark.ddp
@pytest.mark.timeout(120)
def test_a_rank_that_waits_for_ranks_which_have_left_leaves_when_it_is_told(tmp_path):
    board, events = FolderBoard(tmp_path), weighted()
    ranks = [
        processes().Process(target=wait_while_one_dies, args=(events, str(tmp_path), rank, 4))
        for rank in range(4)
    ]
    for rank in ranks:
        rank.start()
    try:
        names = [f"left-{rank}" for rank in (0, 2, 3)]
        wait_until(lambda: all(map(board.find, names)), "all have left", seconds=100)
        for name in names:
            assert re.search(b"closed by peer|reset by peer|Socket closed", board.find(name))
    finally:
        for rank in ranks:
            rank.kill()
            rank.join()
