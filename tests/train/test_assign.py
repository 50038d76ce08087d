import sys
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import num_examples

from mlaas4hep_dask.train.assign import MAX_PIECES, assign, follow
from mlaas4hep_dask.train.shards import SHARDS, part_of, shards_of

COUNTS = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 40)), min_size=1, max_size=12)


@st.composite
def assignments(draw):
    """Counts of blocks, options, and the assignment that is made of them, in rounds."""
    counts = draw(COUNTS)
    ranks = draw(st.integers(1, 5))
    options = {
        "ranks": ranks,
        "batch_size": draw(st.integers(ranks, 60)),
        "window_events": draw(st.integers(1, 80)),
        "seed": draw(st.integers(0, 1000)),
        "files": draw(st.lists(st.integers(0, 3), min_size=len(counts), max_size=len(counts))),
    }
    return counts, options, replace(assign(counts, **options), rounds=draw(st.integers(1, 4)))


def all_windows(assignment):
    return [
        (rank, window)
        for rank in range(assignment.num_ranks)
        for window in range(assignment.num_windows)
    ]


def round_of(assignment, rank, window, *, epoch, shuffle=True):
    """The round of a window, and the window's place in it."""
    number, place = divmod(window, assignment.windows_per_round)
    return assignment.epoch(rank, epoch, shuffle=shuffle).round(number), place


def events_of(assignment, counts, rank, window, *, epoch, shuffle=True):
    """(block, row) of each event of a window in the order in which they are used."""
    of_round, place = round_of(assignment, rank, window, epoch=epoch, shuffle=shuffle)
    rows, bounds = assignment.rows(rank, window, epoch=epoch, shuffle=shuffle)
    ordered = [None] * bounds[-1]
    for number, offset, begin, size in of_round.window(place):
        share = of_round.shares[number]
        block = share.piece.block
        order = assignment.order(share, num_rows=counts[block][1], epoch=epoch)
        order = np.sort(order[offset :: assignment.windows_per_round]).tolist()
        positions = rows[begin : begin + size].tolist()
        for row, position in zip(order, positions, strict=True):
            if position >= 0:
                assert ordered[position] is None
                ordered[position] = (block, row)
    return ordered


def batches_of(assignment, counts, *, epoch):
    """By window and step, the events over all ranks."""
    batches = []
    for window in range(assignment.num_windows):
        steps = [[] for _ in range(assignment.num_steps(window))]
        for rank in range(assignment.num_ranks):
            events = events_of(assignment, counts, rank, window, epoch=epoch)
            bounds = assignment.batch_bounds(rank, window).tolist()
            for step, (begin, end) in zip(steps, pairwise(bounds), strict=True):
                step += events[begin:end]
        assert [len(step) for step in steps] == assignment.step_sizes(window).tolist()
        batches.append([sorted(step) for step in steps])
    return batches


@given(assignments(), st.integers(1, 20), st.integers(0, 3))
@num_examples(40)
def test_the_events_of_a_batch_do_not_depend_on_the_number_of_ranks(made, num_ranks, epoch):
    counts, _options, assignment = made
    other = replace(assignment, num_ranks=num_ranks)
    assert batches_of(assignment, counts, epoch=epoch) == batches_of(other, counts, epoch=epoch)


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 4, 5, 8, 11, 16])
def test_ranks_have_equal_parts_of_every_batch(num_ranks):
    counts = [("ab"[number % 2], 5_000) for number in range(10)]
    options = {"batch_size": 160, "window_events": 10_000, "seed": 1, "ranks": num_ranks}
    assignment = assign(counts, **options, files=[number // 4 for number in range(10)])
    for window in range(assignment.num_windows):
        for rank in range(num_ranks):
            sizes = np.diff(assignment.batch_bounds(rank, window))
            assert abs(sizes - 160 / num_ranks).max() < 3
            assert abs(sizes.sum() - 10_000 / num_ranks) < 10


def test_a_rank_has_whole_shards_where_ranks_divide_them():
    for num_ranks in (1, 2, 4, 8):
        owned = [shards_of(rank, num_ranks) for rank in range(num_ranks)]
        assert [shard for shards in owned for shard in shards] == list(range(SHARDS))
    for num_ranks in (3, 5, 16):
        parts = [[part_of(r, s, num_ranks) for s in range(SHARDS)] for r in range(num_ranks)]
        assert {sum(of_rank) for of_rank in parts} == {SHARDS}
        assert {sum(of_shard) for of_shard in zip(*parts, strict=True)} == {num_ranks}
        for rank, of_rank in enumerate(parts):
            assert [s for s in range(SHARDS) if of_rank[s]] == list(shards_of(rank, num_ranks))


@given(assignments(), st.integers(0, 3), st.booleans())
@num_examples(150)
def test_every_event_is_used_exactly_once_per_epoch(made, epoch, shuffle):
    counts, _options, assignment = made
    used = [
        event
        for rank, window in all_windows(assignment)
        for event in events_of(assignment, counts, rank, window, epoch=epoch, shuffle=shuffle)
    ]
    expected = [(block, row) for block, (_, size) in enumerate(counts) for row in range(size)]
    assert sorted(used) == expected


@given(assignments(), st.integers(0, 3), st.booleans())
@num_examples(150)
def test_windows_have_equal_parts_of_every_block_of_their_round(made, epoch, shuffle):
    _, _, assignment = made
    for rank in range(assignment.num_ranks):
        order = assignment.epoch(rank, epoch, shuffle=shuffle)
        for number in range(assignment.num_rounds):
            of_round = order.round(number)
            found = [[] for _ in of_round.shares]
            for place in range(assignment.windows_per_round):
                dealt = {share: size for share, _, _, size in of_round.window(place)}
                for number_of_share, sizes in enumerate(found):
                    sizes.append(dealt.get(number_of_share, 0))
            for share, sizes in zip(of_round.shares, found, strict=True):
                assert sum(sizes) == len(share)
                assert max(sizes) - min(sizes) <= 1


@given(assignments())
@num_examples(100)
def test_shards_have_equal_parts_of_every_file(made):
    counts, options, assignment = made
    for file in {
        (sample, file) for (sample, _), file in zip(counts, options["files"], strict=True)
    }:
        blocks = [
            block
            for block, (sample, _) in enumerate(counts)
            if (sample, options["files"][block]) == file
        ]
        owned = [
            [piece for pieces in samples for piece in pieces if piece.block in blocks]
            for samples in assignment.pieces
        ]
        if len(blocks) < SHARDS:
            events = [sum(map(len, pieces)) for pieces in owned]
            assert max(events) - min(events) <= 1


MANY = 64  # blocks of a file


@pytest.mark.parametrize("num_files", [2, 100], ids=["cut", "whole"])
def test_rounds_and_ranks_draw_on_every_file_in_proportion(num_files):
    counts = [("s", 10)] * (MANY * num_files)
    files = [block // MANY if block < MANY * num_files // 2 else -1 for block in range(len(counts))]
    made = assign(counts, ranks=4, batch_size=10, window_events=80_000, seed=1, files=files)
    assignment = replace(made, rounds=8)
    for rank in range(4):
        order = assignment.epoch(rank, 1)
        for number in range(assignment.num_rounds):
            found = Counter()
            for share in order.round(number).shares:
                found[files[share.piece.block]] += len(share)
            for file, size in Counter(files).items():
                fair = 10 * size / 4 / assignment.num_rounds
                assert abs(found[file] - fair) <= 20  # a block before, and one after


def test_rounds_of_very_many_blocks_are_more():
    counts = [("s", 1)] * 10_000
    assignment = assign(counts, ranks=2, batch_size=10, window_events=10_000, seed=1)
    assert assignment.num_rounds == 5
    order = replace(assignment, num_ranks=1).epoch(0, 1)
    assert all(len(order.round(number).shares) <= MAX_PIECES for number in range(5))


def num_calls(function):
    """How many functions are called, in Python or not."""
    found = 0

    def count(_frame, event, _argument):
        nonlocal found
        found += event.endswith("call")

    sys.setprofile(count)
    try:
        function()
    finally:
        sys.setprofile(None)
    return found


def test_the_work_of_an_epoch_grows_with_the_number_of_partitions_alone():
    def epoch_of(num_partitions):
        counts = [("ab"[number % 2], 100) for number in range(num_partitions)]
        made = assign(counts, ranks=4, batch_size=100, window_events=1600, seed=1)
        assignment = replace(made, rounds=num_partitions // 25)
        order = assignment.epoch(0, 1)
        for number in range(assignment.num_rounds):
            of_round = order.round(number)
            for place in range(assignment.windows_per_round):
                assert of_round.window(place)
        for window in range(assignment.num_windows):
            assert assignment.batch_bounds(0, window)[-1] <= 408
            assignment.step_sizes(window)

    few, many = (num_calls(lambda n=n: epoch_of(n)) for n in (250, 1000))
    assert many < 5 * few


@given(assignments(), st.sampled_from([1, 2, 4, 8]))
@num_examples(100)
def test_an_event_belongs_to_one_rank_for_the_whole_run(made, num_ranks):
    counts, _options, assignment = made
    assignment = replace(assignment, num_ranks=num_ranks)
    for rank in range(assignment.num_ranks):
        by_epoch = [
            {
                event
                for window in range(assignment.num_windows)
                for event in events_of(assignment, counts, rank, window, epoch=epoch)
            }
            for epoch in (1, 2)
        ]
        assert by_epoch[0] == by_epoch[1]
        assert len(by_epoch[0]) == assignment.num_events(rank)
        assert assignment.blocks(rank) == sorted({block for block, _ in by_epoch[0]})


@given(assignments())
@num_examples(150)
def test_all_ranks_take_equally_many_steps_and_no_step_is_empty(made):
    counts, options, assignment = made
    for window in range(assignment.num_windows):
        steps = assignment.num_steps(window)
        bounds = [assignment.batch_bounds(r, window) for r in range(assignment.num_ranks)]
        assert {len(each) for each in bounds} == {steps + 1}
        for rank, each in enumerate(bounds):
            assert each[0] == 0
            assert each[-1] <= assignment.most_events(rank)
            assert (np.diff(each) >= 0).all()
        sizes = assignment.step_sizes(window)
        assert sizes.sum() == sum(each[-1] for each in bounds)
        assert (sizes > 0).all()
        assert (sizes <= options["batch_size"]).all()
    total = sum(assignment.step_sizes(w).sum() for w in range(assignment.num_windows))
    assert total == sum(size for _, size in counts)


@given(assignments())
@num_examples(150)
def test_windows_mix_samples_in_proportion_and_fit_in_memory(made):
    counts, options, assignment = made
    samples = sorted({sample for sample, size in counts if size})
    totals = [sum(size for name, size in counts if name == sample) for sample in samples]
    for window in range(assignment.num_windows):
        found = dict.fromkeys(samples, 0)
        for rank in range(assignment.num_ranks):
            for block, _ in events_of(assignment, counts, rank, window, epoch=1):
                found[counts[block][0]] += 1
        for total, sample in zip(totals, samples, strict=True):
            fair = total / assignment.num_windows
            assert abs(found[sample] - fair) < 3 * SHARDS  # shards, rounds, and windows round each
        size = sum(found.values())
        assert size == assignment.step_sizes(window).sum()
        assert size <= options["window_events"] + SHARDS * (len(samples) + 1)


@given(assignments())
@num_examples(100)
def test_shards_have_equal_parts_of_every_sample(made):
    counts, _options, assignment = made
    for number, sample in enumerate(sorted({name for name, size in counts if size})):
        owned = [sum(map(len, pieces[number])) for pieces in assignment.pieces]
        assert max(owned) - min(owned) <= 1
        assert sum(owned) == sum(size for name, size in counts if name == sample)


LARGE = [("a", 300), ("b", 200), ("a", 100), ("b", 400)]
OPTIONS = {"ranks": 2, "batch_size": 50, "window_events": 400}


def order_of(*, seed, epoch, shuffle=True):
    assignment = assign(LARGE, seed=seed, **OPTIONS)
    return [
        event
        for rank, window in all_windows(assignment)
        for event in events_of(assignment, LARGE, rank, window, epoch=epoch, shuffle=shuffle)
    ]


@given(assignments(), st.data())
@num_examples(150)
def test_events_of_another_split_are_each_at_one_rank_that_has_their_block(made, data):
    counts, options, leader = made
    sizes = st.lists(st.integers(0, 40), min_size=len(counts), max_size=len(counts))
    others = [(sample, size) for (sample, _), size in zip(counts, data.draw(sizes), strict=True)]
    found = follow(leader, counts, others, window_events=options["window_events"])
    used = [
        event
        for rank, window in all_windows(found)
        for event in events_of(found, others, rank, window, epoch=0, shuffle=False)
    ]
    expected = [(block, row) for block, (_, size) in enumerate(others) for row in range(size)]
    assert sorted(used) == expected
    for rank in range(options["ranks"]):
        foreign = set(found.blocks(rank)) - set(leader.blocks(rank))
        assert all(counts[block][1] == 0 for block in foreign)


def test_the_same_seed_gives_the_same_order():
    assert order_of(seed=3, epoch=2) == order_of(seed=3, epoch=2)


@pytest.mark.parametrize("other", [{"seed": 3, "epoch": 2}, {"seed": 4, "epoch": 1}])
def test_another_epoch_or_another_seed_gives_another_order(other):
    first, second = order_of(seed=3, epoch=1), order_of(**other)
    assert sorted(first) == sorted(second)
    same = sum(a == b for a, b in zip(first, second, strict=True))
    assert same < 20  # of 1000; a random order has one event in its place


def test_an_order_has_no_trace_of_the_order_in_the_files():
    assignment = assign([("a", 1000)], ranks=1, batch_size=10, window_events=1000, seed=1)
    rows = [row for _, row in events_of(assignment, [("a", 1000)], 0, 0, epoch=1)]
    correlation = np.corrcoef(rows, np.arange(1000))[0, 1]
    assert abs(correlation) < 5 / np.sqrt(1000)


def test_batches_mix_blocks_and_windows_change_from_epoch_to_epoch():
    assignment = assign(LARGE, seed=1, **OPTIONS)
    windows = [set(events_of(assignment, LARGE, 0, 0, epoch=epoch)) for epoch in (1, 2)]
    assert windows[0] != windows[1]
    ordered = events_of(assignment, LARGE, 0, 0, epoch=1)
    first_batch = {LARGE[block][0] for block, _ in ordered[: assignment.batch_bounds(0, 0)[1]]}
    assert first_batch == {"a", "b"}


@pytest.mark.parametrize("counts", [[], [("a", 0)], [("a", 0), ("b", 0)]])
def test_a_split_without_events_has_one_window_of_no_steps(counts):
    assignment = assign(counts, ranks=3, batch_size=10, window_events=5, seed=1)
    assert assignment.num_windows == 1
    assert [assignment.num_events(rank) for rank in range(3)] == [0, 0, 0]
    assert assignment.step_sizes(0).tolist() == []
    assert assignment.epoch(0, 1).round(0).window(0) == []
    rows, bounds = assignment.rows(0, 0, epoch=1)
    assert (rows.tolist(), bounds.tolist()) == ([], [0])
