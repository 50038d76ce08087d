import threading
from dataclasses import replace
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import num_examples, part_of

from mlaas4hep_dask.encode import Block, Encoding, encode
from mlaas4hep_dask.encode.split import event_ids, split_of
from mlaas4hep_dask.errors import DataError
from mlaas4hep_dask.specs.measure import measure
from mlaas4hep_dask.train.assign import assign
from mlaas4hep_dask.train.densify import host
from mlaas4hep_dask.train.device_rows import DeviceRows
from mlaas4hep_dask.train.feed import TEST, TRAIN, VALIDATION, Feed, Rows

NUM_EVENTS = 900


@pytest.fixture(scope="module")
def blocks(cms_events):
    """Real events in blocks of unequal size; the number of the event stands in y."""
    events = part_of(cms_events, 0, NUM_EVENTS)
    encoding = Encoding.from_specs(measure(events, sample="s"), width=4)
    edges = [0, 100, 101, 101, 400, 850, NUM_EVENTS]
    made = []
    for start, stop in pairwise(edges):
        ids = event_ids("a file", start, stop)
        number = np.arange(start, stop, dtype=np.float32)
        split = split_of(ids, (0.6, 0.3, 0.1), seed=1)
        encoded = encode(part_of(events, start, stop), encoding)
        made.append(Block(encoded, number, number / 2 + 1, ids, split))
    return made


@pytest.fixture(scope="module")
def rows(blocks):
    """Inputs and missing mask of all events by their number."""
    dense = np.concatenate([block.encoded.dense() for block in blocks])
    return dense, np.concatenate([block.encoded.missing() for block in blocks])


class Source:
    """Blocks in memory; notes what was announced and what was asked for."""

    def __init__(self, blocks, *, broken=None):
        self.blocks, self.broken = blocks, broken
        self.calls = []

    def prefetch(self, blocks, split):  # noqa: ARG002  # the feed gives both
        self.calls.append(("prefetch", tuple(blocks)))

    def get(self, block, split):  # noqa: ARG002
        self.calls.append(("get", block))
        if block == self.broken:
            raise OSError(f"block {block} is gone")
        return self.blocks[block]


def assignment_of(blocks, split, *, ranks=2, batch_size=64, window_events=150, seed=1):
    samples = "aabbab"
    counts = [(samples[i], int((block.split == split).sum())) for i, block in enumerate(blocks)]
    return assign(
        counts, ranks=ranks, batch_size=batch_size, window_events=window_events, seed=seed
    )


ON_A_DEVICE = partial(DeviceRows, device=torch.device("cpu"))


def feed_of(source, assignment, *, rank=0, split=TRAIN, with_missing=False, rows=Rows):
    num_columns = source.blocks[0].encoded.layout.num_columns
    return Feed(
        source,
        assignment,
        rank=rank,
        split=split,
        row_shape=(num_columns,),
        with_missing=with_missing,
        rows=rows,
    )


def feed_threads():
    return [thread for thread in threading.enumerate() if thread.name == "feed"]


@given(
    st.sampled_from([TRAIN, VALIDATION, TEST]),
    st.integers(1, 4),
    st.integers(1, 700),
    st.integers(1, 3) | st.none(),
    st.integers(0, 5),
    st.booleans(),
    st.sampled_from([Rows, ON_A_DEVICE]),
)
@num_examples(30)
def test_every_event_of_the_split_comes_once_with_its_own_values(
    blocks, rows, split, ranks, window_events, rounds, epoch, shuffle, kind
):
    assignment = assignment_of(blocks, split, ranks=ranks, window_events=window_events)
    assignment = replace(assignment, rounds=rounds)
    numbers = []
    for rank in range(ranks):
        feed = feed_of(
            Source(blocks), assignment, rank=rank, split=split, with_missing=True, rows=kind
        )
        windows = 0
        for window in feed.windows(epoch, shuffle=shuffle):
            event = window.y.astype(int)
            assert isinstance(window.x, torch.Tensor) == (kind is ON_A_DEVICE)
            np.testing.assert_array_equal(window.x, rows[0][event])
            np.testing.assert_array_equal(window.missing, rows[1][event])
            np.testing.assert_array_equal(window.w, window.y / 2 + 1)
            assert window.bounds[-1] == len(window.y)
            np.testing.assert_array_equal(window.step_sizes, assignment.step_sizes(windows))
            numbers += event.tolist()
            windows += 1
        assert windows == assignment.num_windows
    expected = np.concatenate([block.y[block.split == split] for block in blocks])
    assert sorted(numbers) == expected.astype(int).tolist()


def order(blocks, *, epoch, shuffle=True):
    feed = feed_of(Source(blocks), assignment_of(blocks, TRAIN))
    windows = feed.windows(epoch, shuffle=shuffle)
    return np.concatenate([window.y.copy() for window in windows]).tolist()


def test_the_order_depends_on_the_epoch_alone(blocks):
    assert order(blocks, epoch=1) == order(blocks, epoch=1)
    assert order(blocks, epoch=1) != order(blocks, epoch=2)
    assert sorted(order(blocks, epoch=1)) == sorted(order(blocks, epoch=2))


def test_one_feed_serves_epoch_after_epoch(blocks):
    feed = feed_of(Source(blocks), assignment_of(blocks, TRAIN))
    for epoch in (1, 2, 3):
        found = np.concatenate([window.y.copy() for window in feed.windows(epoch)]).tolist()
        assert found == order(blocks, epoch=epoch)


@pytest.mark.parametrize("rounds", [1, 4])
def test_an_epoch_goes_on_at_any_window_without_the_rounds_before(blocks, rounds):
    assignment = replace(assignment_of(blocks, TRAIN, ranks=1, window_events=60), rounds=rounds)
    whole = [window.y.copy() for window in feed_of(Source(blocks), assignment).windows(3)]
    assert len(whole) >= 8
    for first in (0, 1, 5, len(whole) - 1, len(whole)):
        source = Source(blocks)
        windows = feed_of(source, assignment).windows(3, first=first)
        rest = [window.y.copy() for window in windows]
        assert [y.tolist() for y in rest] == [y.tolist() for y in whole[first:]]
        announced = [call for call in source.calls if call[0] == "prefetch"]
        assert len(announced) == assignment.num_rounds - first // assignment.windows_per_round


def test_a_mask_is_made_only_when_it_is_asked_for(blocks):
    feed = feed_of(Source(blocks), assignment_of(blocks, TRAIN))
    assert all(window.missing is None for window in feed.windows(1))


@pytest.mark.parametrize("kind", [Rows, ON_A_DEVICE])
def test_a_window_stays_as_it_is_until_the_next_is_asked_for(blocks, kind):
    feed = feed_of(Source(blocks), assignment_of(blocks, TRAIN, window_events=40), rows=kind)
    assert feed._assignment.num_windows > 4
    for window in feed.windows(1):
        before = host(window.x).copy()
        for thread in feed_threads():
            thread.join(0.02)  # time to write the window after the next
        np.testing.assert_array_equal(window.x, before)


def test_blocks_are_announced_before_they_are_asked_for(blocks):
    source = Source(blocks)
    assignment = replace(assignment_of(blocks, TRAIN), rounds=3)
    for _ in feed_of(source, assignment).windows(1):
        pass
    announced = ()
    for what, block in source.calls:
        if what == "prefetch":
            announced = block
        else:
            assert block in announced
    announcements = [call for call in source.calls if call[0] == "prefetch"]
    assert len(announcements) == assignment.num_rounds == 3
    assert {block for call in announcements for block in call[1]} == set(assignment.blocks(0))


@pytest.mark.timeout(30)
def test_a_failing_source_fails_the_consumer_and_ends_the_thread(blocks):
    assignment = assignment_of(blocks, TRAIN)
    broken = assignment.blocks(0)[-1]
    feed = feed_of(Source(blocks, broken=broken), assignment)
    with pytest.raises(OSError, match=f"block {broken} is gone"):
        for _ in feed.windows(1):
            pass
    assert not feed_threads()


@pytest.mark.parametrize("taken", [1, 2, 3])
def test_leaving_early_ends_the_thread(taken, blocks):
    feed = feed_of(Source(blocks), assignment_of(blocks, TRAIN, window_events=30))
    windows = feed.windows(1)
    for _ in range(taken):
        next(windows)
    assert feed_threads()
    windows.close()
    assert not feed_threads()
    # A feed that was left can be used again.
    assert sum(len(window.y) for window in feed.windows(2)) == feed._assignment.num_events(0)


def test_a_split_without_events_gives_one_empty_window(blocks):
    assignment = assign([("a", 0)] * len(blocks), ranks=1, batch_size=8, window_events=9, seed=1)
    windows = list(feed_of(Source(blocks), assignment).windows(1))
    assert [len(window.y) for window in windows] == [0]
    assert windows[0].x.shape == (0, blocks[0].encoded.layout.num_columns)


def test_a_block_knows_its_size(blocks):
    arrays = ("y", "w", "id", "split")
    block = blocks[0]
    assert len(block) == 100
    assert block.nbytes == block.encoded.nbytes + sum(getattr(block, a).nbytes for a in arrays)


def test_a_window_is_not_filled_with_what_a_smaller_block_does_not_have(blocks, rows):
    """Memory that nobody wrote would be inputs with a plausible score."""
    fewer = list(blocks)
    fewer[4] = fewer[4].of_split(TEST)
    feed = Feed(
        Source(fewer),
        assignment_of(blocks, TRAIN, ranks=1),
        rank=0,
        split=TRAIN,
        row_shape=rows[0].shape[1:],
    )
    with pytest.raises(DataError, match="block 4 has 0 events of its split, and"):
        list(feed.windows(0))
