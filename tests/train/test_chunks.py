from collections import Counter
from itertools import pairwise

import pytest
from alone import Memory, run_epoch, task_of
from hypothesis import given
from hypothesis import strategies as st
from test_method import config, piece

from mlaas4hep_dask.errors import ConfigError
from mlaas4hep_dask.train.assign import assign
from mlaas4hep_dask.train.chunks import chunk_of, num_chunks
from mlaas4hep_dask.train.method import Method
from mlaas4hep_dask.train.rank import Rank


def events_of(assignment):
    """Every place of every block that an assignment has."""
    return [
        (each.block, place)
        for samples in assignment.pieces
        for owned in samples
        for each in owned
        for place in range(each.start, each.stop)
    ]


def files_of(assignment):
    return Counter(assignment.files[block] for block, _ in events_of(assignment))


@given(
    sizes=st.lists(st.integers(0, 40), min_size=1, max_size=8),
    ranks=st.integers(1, 3),
    number=st.integers(1, 9),
)
def test_every_event_is_in_one_chunk_and_chunks_are_equal(sizes, ranks, number):
    samples = [("ab"[n % 2], size) for n, size in enumerate(sizes)]
    if not sum(sizes):
        return
    files = [n // 2 for n in range(len(sizes))]
    whole = assign(samples, ranks=ranks, batch_size=10, window_events=50, seed=3, files=files)
    chunks = [chunk_of(whole, n, number) for n in range(number)]
    together = [event for chunk in chunks for event in events_of(chunk)]
    assert sorted(together) == sorted(events_of(whole))
    assert len(set(together)) == sum(sizes)


def test_a_chunk_has_a_part_of_every_file_in_proportion():
    sizes = [("a", 300), ("b", 500), ("a", 300), ("b", 2000), ("b", 500)]
    whole = assign(sizes, ranks=2, batch_size=10, window_events=500, seed=3, files=[0, 1, 0, 2, 1])
    numbers = []
    for n in range(7):
        chunk = chunk_of(whole, n, 7)
        numbers.append(len(events_of(chunk)))
        for file, total in files_of(whole).items():
            assert files_of(chunk)[file] == pytest.approx(total / 7, rel=0.5)
    assert sum(numbers) == 3600
    assert max(numbers) - min(numbers) < 0.05 * 3600 / 7 * 2


def test_chunks_of_files_with_few_events_are_equal_too():
    sizes = [("a", 50)] * 100
    whole = assign(sizes, ranks=1, batch_size=10, window_events=500, seed=3, files=list(range(100)))
    numbers = [len(events_of(chunk_of(whole, n, 100))) for n in range(100)]
    assert sum(numbers) == 5000
    assert min(numbers) > 25
    assert max(numbers) < 75


def chunked(memory, *, passes=2, number=3, **more):
    return task_of(memory, epochs=number, passes=passes, num_chunks=number, **more)


def test_each_chunk_is_gone_through_as_often_as_asked_and_then_the_next():
    memory = Memory()
    task = chunked(memory)
    rank = Rank(task, None)
    train = task.assignments.train
    results = [run_epoch(rank, memory, epoch) for epoch in (1, 2, 3)]
    sizes = [chunk_of(train, n, 3).num_events(0) for n in range(3)]
    assert [result.num_events for result in results] == [2 * size for size in sizes]
    assert [result.splits["train"].num_events for result in results] == sizes
    assert sum(sizes) == train.num_events(0)
    losses = [result.splits["validation"].loss for result in results]
    assert all(after < before for before, after in pairwise(losses))


def test_a_run_goes_on_with_the_next_chunk_as_if_nothing_had_been():
    memory = Memory()
    cycle = Method(optimiser=piece("SGD"), scheduler=piece("OneCycleLR", "scheduler"))
    task = chunked(memory, method=cycle)
    rank = Rank(task, None)
    first = run_epoch(rank, memory, 1)
    undisturbed = [run_epoch(rank, memory, epoch) for epoch in (2, 3)]
    resumed = Rank(task, first.state)
    found = [run_epoch(resumed, memory, epoch) for epoch in (2, 3)]
    assert [each.state for each in found] == [each.state for each in undisturbed]
    assert found[-1].splits == undisturbed[-1].splits


def test_a_schedule_that_counts_steps_bears_chunks_with_one_more(tmp_path):
    memory = Memory(sizes=(301, 203, 407, 95))
    cycle = Method(optimiser=piece("SGD"), scheduler=piece("OneCycleLR", "scheduler"))
    rank = Rank(chunked(memory, passes=3, number=5, method=cycle), None)
    for epoch in range(1, 6):
        run_epoch(rank, memory, epoch)
    assert rank.learner.stepper.learning_rate < 1e-4


def test_dataset_yaml_tells_how_large_chunks_are():
    keys = config(strategy="chunked", chunk_events=5000, epochs=3).training
    assert (keys.passes, num_chunks(12_000, keys.chunk_events)) == (3, 3)
    assert config().training.passes == num_chunks(12_000, None) == 1
    for wrong, words in (
        ({"strategy": "chunked"}, "chunk_events: is needed with strategy: chunked"),
        ({"chunk_events": 500}, "chunk_events: has no use without strategy: chunked"),
        ({"strategy": "chunked", "chunk_events": 5}, r"at least one batch \(256\), found 5"),
        ({"strategy": "chunks"}, "'chunked'"),
    ):
        with pytest.raises(ConfigError, match=words):
            config(**wrong)
