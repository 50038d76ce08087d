import json
import math
import pickle
from functools import reduce
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import events, num_examples, part_of

from mlaas4hep_dask.encode.split import event_ids, split_of
from mlaas4hep_dask.errors import SpecsError
from mlaas4hep_dask.events import Branch, Events
from mlaas4hep_dask.events.events import offsets_of
from mlaas4hep_dask.specs import Specs
from mlaas4hep_dask.specs.draw import (
    EVERYTHING,
    SIZE,
    draw_events,
    draw_objects,
    entry_keys,
    event_keys,
)
from mlaas4hep_dask.specs.measure import measure
from mlaas4hep_dask.specs.specs import merge, merge_all

FRACTIONS = (0.64, 0.16, 0.2)
PROBABILITIES = [0.001, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.999]
NUM_EVENTS = 30_000


def made_events(num_events=NUM_EVENTS, seed=0):
    """More values than a draw keeps: flat, jagged, rarely an object, mostly NaN."""
    random = np.random.default_rng(seed)
    offsets = {
        "Jet": offsets_of(random.poisson(3, num_events)),
        "Tau": offsets_of(random.poisson(0.01, num_events)),
    }
    contents = {
        "met": random.exponential(size=num_events).astype(np.float32),
        "mostly_nan": np.where(random.random(num_events) < 0.9, np.nan, 7.0),
        "constant": np.full(num_events, 3, np.int16),
        "Jet_pt": random.normal(size=offsets["Jet"][-1]).astype(np.float32),
        "Jet_number": np.concatenate([np.arange(n) for n in np.diff(offsets["Jet"])]),
        "Tau_pt": random.normal(size=offsets["Tau"][-1]),
    }
    branches = []
    for name, values in contents.items():
        collection = name.split("_")[0] if name[0].isupper() else None
        kind = "flat" if collection is None else "jagged"
        branches.append(Branch(name, kind, values.dtype.name, collection))
    return Events(num_events, tuple(branches), contents, offsets)


EVENTS = made_events()
IDS = event_ids("a file", 0, NUM_EVENTS)
WHOLE = measure(EVENTS, sample="s", ids=IDS)


def measured(cuts):
    edges = [0, *sorted(cuts), NUM_EVENTS]
    return [measure(part_of(EVENTS, a, b), sample="s", ids=IDS[a:b]) for a, b in pairwise(edges)]


def assert_same_draw(a, b):
    a, b = a.in_order(), b.in_order()
    assert a.draws == b.draws
    for name, entry in a.branches.items():
        np.testing.assert_array_equal(entry.drawn, b.branches[name].drawn)


@given(st.lists(st.integers(0, NUM_EVENTS), max_size=6), st.randoms())
@num_examples(25)
def test_the_draw_does_not_depend_on_partitions_or_their_order(cuts, random):
    parts = measured(cuts)
    random.shuffle(parts)
    assert_same_draw(merge_all(parts), WHOLE)
    while len(parts) > 1:  # merged in any tree
        random.shuffle(parts)
        parts.append(merge(parts.pop(), parts.pop()))
    assert_same_draw(parts[0], WHOLE)


def with_ids(events, number):
    return measure(events, sample="s", ids=event_ids(f"file {number}", 0, len(events)))


@given(events(), events(), events())
@num_examples(60)
def test_draws_of_any_events_merge_exactly(a, b, c):
    a, b, c = (with_ids(part, number) for number, part in enumerate((a, b, c)))
    assert_same_draw(merge(merge(a, b), c), merge(a, merge(b, c)))
    assert_same_draw(merge(a, b), merge(b, a))
    assert merge(a, Specs()) == merge(Specs(), a) == a


@given(events())
@num_examples(60)
def test_quantiles_of_few_values_are_exact(events):
    specs = measure(events, sample="s")
    for name, entry in specs.branches.items():
        values = events.contents[name].astype(np.float64)
        values = values[np.isfinite(values)]
        if values.size == 0:
            with pytest.raises(SpecsError, match="no finite value"):
                entry.quantile(0.5)
            continue
        expected = np.quantile(values, PROBABILITIES, method="inverted_cdf")
        assert entry.quantiles(PROBABILITIES) == expected.tolist()
        assert (entry.quantile(0), entry.quantile(1)) == (entry.min, entry.max)
        assert entry.rank_error() == 0


def test_a_draw_is_uniform_over_entries_places_in_the_event_and_splits():
    keys = event_keys(IDS)
    draw, places = draw_events(keys)
    assert np.array_equal(keys, entry_keys(int(IDS[0, 0]), 0, NUM_EVENTS))
    assert 0.93 * SIZE < len(draw) <= SIZE
    assert 0 < draw.limit < EVERYTHING
    error = math.sqrt(SIZE) / 2
    assert abs((places < NUM_EVENTS // 2).sum() - len(draw) / 2) < 4 * error
    split = np.bincount(split_of(IDS[places], FRACTIONS, seed=0), minlength=3)
    assert np.all(np.abs(split - len(draw) * np.array(FRACTIONS)) < 4 * error)

    draw, places, counts = draw_objects(keys, EVENTS.offsets["Jet"])
    assert counts.tolist() == np.bincount(np.diff(EVENTS.offsets["Jet"])).tolist()
    assert 0.93 * SIZE < len(draw) <= SIZE
    number = EVENTS.contents["Jet_number"]
    for n in range(6):
        expected = len(draw) * (number == n).mean()
        assert abs((number[places] == n).sum() - expected) < 4 * math.sqrt(expected)
    assert len(set(places.tolist())) == len(draw)


def test_events_with_thousands_of_objects_are_drawn_from():
    counts = np.array([0, 9_000, 3, 0, 6_000])
    offsets = offsets_of(counts)
    draw, places, _ = draw_objects(event_keys(IDS[:5]), offsets)
    assert SIZE / 2 < len(draw) <= SIZE
    share = np.diff(np.searchsorted(np.sort(places), offsets)) / counts.clip(1)
    assert share[1] == pytest.approx(share[4], rel=0.2)


def test_quantiles_have_the_error_in_rank_that_the_specs_state(cms_events):
    specs = measure(cms_events, sample="s", ids=event_ids("cms", 0, len(cms_events)))
    num_checked = 0
    for name, entry in specs.branches.items():
        values = np.sort(cms_events.contents[name].astype(np.float64))
        for q, found in zip(PROBABILITIES, entry.quantiles(PROBABILITIES), strict=True):
            error = entry.rank_error(q) + 1 / len(values)
            low = np.searchsorted(values, found, side="left") / len(values)
            high = np.searchsorted(values, found, side="right") / len(values)
            assert low - 5 * error < q < high + 5 * error, (name, q)
            num_checked += values.size > SIZE
    assert num_checked > 100


def test_a_draw_keeps_what_is_rare_and_skips_what_is_not_finite():
    taus = EVENTS.contents["Tau_pt"]
    assert WHOLE.branches["Tau_pt"].quantile(0.5) == np.quantile(taus, 0.5, method="inverted_cdf")
    assert WHOLE.branches["Tau_pt"].rank_error() == 0
    entry = WHOLE.branches["mostly_nan"]
    assert entry.quantiles([0.01, 0.99]) == [7, 7]
    assert entry.rank_error() > WHOLE.branches["met"].rank_error() > 0
    assert WHOLE.branches["constant"].quantile(0.3) == 3


def test_specs_without_a_draw_say_so():
    older = json.loads(WHOLE.to_json())
    older["version"] = 1
    del older["draws"], older["drawn"]
    specs = Specs.from_json(json.dumps(older))
    assert specs.branches["met"].mean == WHOLE.branches["met"].mean
    for case in (specs, merge(specs, WHOLE), merge(WHOLE, specs)):
        with pytest.raises(SpecsError, match="hold no draw of branch 'met'"):
            case.branches["met"].quantile(0.5)
        assert math.isnan(case.branches["met"].rank_error())
        assert Specs.from_json(case.to_json()) == case


def test_large_specs_survive_json_and_merging_afterwards():
    parts = measured([10_000])
    back = [Specs.from_json(part.to_json()) for part in parts]
    assert back == parts
    assert_same_draw(reduce(merge, back), WHOLE)


@given(events())
@num_examples(30)
def test_specs_survive_pickling(events):
    specs = measure(events, sample="s")
    assert pickle.loads(pickle.dumps(specs)) == specs  # noqa: S301  # made here


def test_drawn_values_of_a_collection_and_type_travel_together():
    buffers = []
    content = pickle.dumps(WHOLE, protocol=5, buffer_callback=buffers.append)
    together = {(entry.group, entry.drawn.dtype) for entry in WHOLE.branches.values()}
    assert len(buffers) == len(together) + len(WHOLE.draws) + 1  # and all moments
    assert pickle.loads(content, buffers=buffers) == WHOLE  # noqa: S301  # made here
    assert pickle.loads(pickle.dumps(Specs())) == Specs()  # noqa: S301  # made here
