import multiprocessing
import os
import platform
import threading
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from mlaas4hep_dask.errors import TrainingError
from mlaas4hep_dask.train.exchange import SharedMemory, SharedMemoryExchange

NUM_EXCHANGES = 300
CAPACITY = 1000

pytestmark = [
    pytest.mark.ddp,
    pytest.mark.skipif(
        platform.machine() not in ("x86_64", "AMD64") or not hasattr(os, "memfd_create"),
        reason="gradients go through shared memory on x86-64 with Linux only",
    ),
]


def values_of(rank, number, num_ranks):
    """What a rank contributes; sizes vary, as those of gradient buckets do."""
    size = 1 + (number * 37) % CAPACITY
    return np.random.default_rng([rank, number, num_ranks]).normal(size=size).astype(np.float32)


def average_often(path, rank, num_ranks):
    exchange = SharedMemoryExchange(path, rank=rank, num_ranks=num_ranks, capacity=CAPACITY)
    results = []
    for number in range(NUM_EXCHANGES):
        values = values_of(rank, number, num_ranks)
        exchange.average(values)
        results.append(values)
    return results


@pytest.fixture
def made():
    memories = []

    def make(num_ranks):
        nbytes = SharedMemoryExchange.nbytes(num_ranks=num_ranks, capacity=CAPACITY)
        memories.append(SharedMemory.create(nbytes))
        return memories[-1].path

    yield make
    for memory in memories:
        memory.close()


@pytest.mark.parametrize("num_ranks", [2, 3])
def test_processes_get_equal_bits_of_the_right_average(num_ranks, made):
    path = made(num_ranks)
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(num_ranks, mp_context=spawn) as pool:
        futures = [pool.submit(average_often, path, rank, num_ranks) for rank in range(num_ranks)]
        results = [future.result() for future in futures]
    for number in range(NUM_EXCHANGES):
        first = results[0][number]
        assert all(result[number].tobytes() == first.tobytes() for result in results)
        exact = np.mean(
            [values_of(rank, number, num_ranks).astype(np.float64) for rank in range(num_ranks)],
            axis=0,
        )
        np.testing.assert_allclose(first, exact, rtol=0, atol=1e-6)


def leave_after_one(path):
    exchange = SharedMemoryExchange(path, rank=1, num_ranks=2, capacity=CAPACITY)
    exchange.average(np.full(3, 3, np.float32))
    os._exit(1)


def test_a_dead_peer_is_named_after_a_while(made):
    path = made(2)
    peer = multiprocessing.get_context("spawn").Process(target=leave_after_one, args=(path,))
    peer.start()
    give_up = 20.0  # the peer needs some seconds to start
    exchange = SharedMemoryExchange(path, rank=0, num_ranks=2, capacity=CAPACITY, give_up=give_up)
    values = np.full(3, 1, np.float32)
    exchange.average(values)
    assert values.tolist() == [2, 2, 2]
    peer.join()
    exchange.give_up = 0.1
    with pytest.raises(TrainingError, match=r"no answer while waiting for ranks \[1\]") as caught:
        exchange.average(values)
    assert caught.value.rank == 0


def test_an_abandoned_exchange_stops_waiting(made):
    exchange = SharedMemoryExchange(made(3), rank=1, num_ranks=3, capacity=CAPACITY)
    found = []

    def wait():
        try:
            exchange.average(np.zeros(5, np.float32))
        except TrainingError as error:
            found.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    waiting.join(0.2)
    assert waiting.is_alive()
    exchange.abandoned = True
    waiting.join(30)
    assert not waiting.is_alive()
    assert "abandoned while waiting for ranks [0, 2]" in str(found[0])


def test_one_rank_alone_keeps_its_values(made):
    exchange = SharedMemoryExchange(made(1), rank=0, num_ranks=1, capacity=CAPACITY)
    values = np.arange(5, dtype=np.float32)
    exchange.average(values)
    assert values.tolist() == [0, 1, 2, 3, 4]


def test_more_memory_than_there_is_gives_no_exchange():
    before = sorted(link.name for link in Path("/proc/self/fd").iterdir())
    assert SharedMemory.create(2**50) is None
    assert sorted(link.name for link in Path("/proc/self/fd").iterdir()) == before


def test_the_memory_has_no_name_and_cannot_be_made_shorter(made):
    path = made(2)
    with pytest.raises(PermissionError):
        os.truncate(path, 8)  # another rank would end in a bus error
    assert str(Path(path).readlink()).startswith("/memfd:")


@pytest.mark.parametrize("kind", ["a file", "a link to a file", "memory of another size"])
def test_what_no_rank_has_made_is_not_opened(kind, tmp_path, made):
    victim = tmp_path / "victim"
    victim.write_bytes(bytes(SharedMemoryExchange.nbytes(num_ranks=2, capacity=CAPACITY)))
    path, capacity = str(victim), CAPACITY
    if kind == "a link to a file":
        with victim.open("rb") as file:
            path = f"/proc/{os.getpid()}/fd/{file.fileno()}"
            with pytest.raises(OSError, match="no memory of a rank"):
                SharedMemoryExchange(path, rank=0, num_ranks=2, capacity=capacity)
    else:
        if kind == "memory of another size":
            path, capacity = made(2), CAPACITY + 1
        with pytest.raises(OSError, match=r"no memory that a rank shows|another size"):
            SharedMemoryExchange(path, rank=0, num_ranks=2, capacity=capacity)
    assert set(victim.read_bytes()) == {0}
