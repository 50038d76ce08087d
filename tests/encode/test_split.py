from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlaas4hep_dask.encode.split import event_ids, file_id, split_of

FRACTIONS = (0.6, 0.3, 0.1)
NUM_EVENTS = 20_000


@given(
    st.text(min_size=1),
    st.integers(0, 2**40),
    st.integers(0, 300),
    st.lists(st.integers(0, 300), max_size=5),
    st.integers(0, 2**32),
)
def test_the_split_does_not_depend_on_partitions(uuid, start, num_events, cuts, seed):
    whole = split_of(event_ids(uuid, start, start + num_events), FRACTIONS, seed=seed)
    edges = [0, *sorted(min(cut, num_events) for cut in cuts), num_events]
    parts = [
        split_of(event_ids(uuid, start + a, start + b), FRACTIONS, seed=seed)
        for a, b in pairwise(edges)
    ]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_the_split_does_not_depend_on_the_order_of_files():
    ids = [event_ids(uuid, 0, 500) for uuid in ("a", "b", "c")]
    alone = {i: split_of(part, FRACTIONS, seed=1) for i, part in enumerate(ids)}
    order = [2, 0, 1]
    together = split_of(np.concatenate([ids[i] for i in order]), FRACTIONS, seed=1)
    np.testing.assert_array_equal(together, np.concatenate([alone[i] for i in order]))


@pytest.mark.parametrize("fractions", [FRACTIONS, (0.8, 0.1, 0.1), (0.34, 0.33, 0.33)])
@pytest.mark.parametrize("seed", [0, 1, 12345])
def test_the_fractions_are_right_within_binomial_errors(fractions, seed):
    split = split_of(event_ids("a file", 0, NUM_EVENTS), fractions, seed=seed)
    for number, fraction in enumerate(fractions):
        error = np.sqrt(NUM_EVENTS * fraction * (1 - fraction))
        assert abs((split == number).sum() - NUM_EVENTS * fraction) < 5 * error


@pytest.mark.parametrize(
    ("fractions", "expected"), [((1.0, 0.0, 0.0), {0}), ((0.5, 0.5, 0.0), {0, 1}), ((0, 0, 1), {2})]
)
def test_a_split_of_no_fraction_gets_no_event(fractions, expected):
    found = split_of(event_ids("a file", 0, NUM_EVENTS), fractions, seed=3)
    assert set(found.tolist()) == expected


def test_neighbours_and_files_and_seeds_are_independent():
    def train(uuid, seed, start=0):
        ids = event_ids(uuid, start, start + NUM_EVENTS)
        return split_of(ids, (0.5, 0.5, 0.0), seed=seed) == 0

    first = train("a", 0)
    others = {"seed": train("a", 1), "file": train("b", 0), "neighbour": train("a", 0, start=1)}
    for name, other in others.items():
        agreement = (first == other).sum()
        assert abs(agreement - NUM_EVENTS / 2) < 5 * np.sqrt(NUM_EVENTS) / 2, name


def test_the_same_seed_gives_the_same_split():
    ids = event_ids("a file", 0, 1000)
    np.testing.assert_array_equal(
        split_of(ids, FRACTIONS, seed=7), split_of(ids.copy(), FRACTIONS, seed=7)
    )


@given(st.lists(st.text(), unique=True, max_size=20))
def test_files_have_ids_of_their_own(uuids):
    ids = {file_id(uuid) for uuid in uuids}
    assert len(ids) == len(uuids)
    assert all(0 <= number < 2**64 for number in ids)


def test_an_event_id_is_the_file_and_the_entry():
    ids = event_ids("a file", 10, 13)
    assert ids.dtype == np.uint64
    assert ids.tolist() == [[file_id("a file"), entry] for entry in (10, 11, 12)]
