"""Sums that do not depend on the order of adding, nor on how often parts were merged."""

import json
from fractions import Fraction
from functools import reduce

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlaas4hep_dask.specs.exact import added, from_text, sums_of, to_text, whole
from mlaas4hep_dask.specs.measure import moments
from mlaas4hep_dask.specs.moments import Moments, merge_moments
from mlaas4hep_dask.specs.sample import ClassSums, SampleSpecs

FLOATS = st.floats(allow_nan=False, allow_infinity=False, width=64)
PARTS = st.lists(st.lists(st.floats(-1e30, 1e30), max_size=5), min_size=1, max_size=6)


@given(PARTS, st.randoms())
def test_moments_are_the_same_bits_in_any_order_and_grouping(parts, random):
    parts = [moments(np.array(part)) for part in parts]
    expected = reduce(merge_moments, parts)
    left = parts[:]
    random.shuffle(left)
    while len(left) > 1:
        place = random.randrange(len(left) - 1)
        left[place : place + 2] = [merge_moments(left[place], left[place + 1])]
        if random.random() < 0.3:
            left[0] = Moments.from_json(json.loads(json.dumps(left[0].as_json())))
    assert left[0] == expected


@given(PARTS)
def test_merged_moments_are_those_of_the_parts_in_exact_arithmetic(parts):
    found = [moments(np.array(part)) for part in parts]
    merged = reduce(merge_moments, found)
    count = merged.num_finite
    if count == 0:
        return
    mean = sum(part.num_finite * Fraction(part.mean) for part in found) / count
    squares = sum(
        Fraction(part.squares) + part.num_finite * (Fraction(part.mean) - mean) ** 2
        for part in found
        if part.num_finite
    )
    assert merged.mean == float(mean)
    assert merged.squares == float(squares)


@given(st.lists(FLOATS, min_size=1, max_size=8), st.randoms())
def test_sums_of_weights_are_the_same_bits_in_any_order(weights, random):
    samples = [
        SampleSpecs(1, 1, w, sum_weights_read=w, classes=(ClassSums(1, w, 1, -w),)) for w in weights
    ]
    expected = sum(samples[1:], samples[0])
    random.shuffle(samples)
    middle = random.randrange(len(samples))
    first = sum(samples[:middle], SampleSpecs())
    back = first
    if np.isfinite([first.sum_weights, *(c.sum_weights_train for c in first.classes)]).all():
        back = SampleSpecs.from_json(json.loads(json.dumps(first.as_json())))
    again = back + sum(samples[middle:], SampleSpecs())
    exact = sum(map(Fraction, weights))
    if abs(exact) < 1e308:
        assert again.sum_weights == expected.sum_weights == float(exact)
        assert again.classes[0].sum_weights_train == expected.classes[0].sum_weights_train
    if middle < len(samples):
        assert again == expected


@given(FLOATS, FLOATS)
def test_a_sum_is_rounded_once(a, b):
    shown, exact = added(a, None, b, None)
    assert shown == a + b
    if abs(shown) < 1e308:
        assert (exact is None) == (Fraction(a) + Fraction(b) == Fraction(shown))


@given(st.integers())
def test_texts_of_sums_lead_back(total):
    assert from_text(to_text(total)) == total


@pytest.mark.parametrize("text", ["", "12", "p", "1p-3", "zzp1", "1p99999999", "f" * 5000 + "p1"])
def test_a_text_that_is_no_sum_is_refused(text):
    with pytest.raises(ValueError):
        from_text(text)


@given(FLOATS)
def test_a_float_is_a_whole_number_of_units(value):
    assert Fraction(whole(value), 2**1074) == Fraction(value)


def test_a_sum_of_squares_beyond_float64_stays_at_its_end():
    largest = float(np.finfo(float).max)
    sums = sums_of(2, 0.0, largest).plus(sums_of(3, 1e200, largest))
    assert sums.mean_and_squares(5) == (6e199, largest)
