import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from strategies import num_examples

from mlaas4hep_dask.objective.arithmetic.curves import (
    NUM_BINS,
    auc,
    bin_of,
    fill,
    roc,
)

FLOATS = st.floats(width=32, allow_nan=False)


def histogram_of(logits, y, w=None):
    histogram = np.zeros((2, NUM_BINS))
    w = np.ones(len(logits)) if w is None else w
    fill(histogram, np.asarray(logits, np.float32), np.asarray(y, np.float32), w)
    return histogram


def auc_by_ranks(scores, y, w):
    """Weighted Mann-Whitney statistic from sorted scores, equal ones counting one half."""
    order = np.argsort(scores, kind="stable")
    scores, y, w = scores[order], y[order], w[order].astype(np.float64)
    background = np.concatenate([[0.0], np.cumsum(np.where(y == 0, w, 0))])
    low = np.searchsorted(scores, scores, side="left")
    high = np.searchsorted(scores, scores, side="right")
    below = 0.5 * (background[low] + background[high])
    signal = np.where(y == 1, w, 0)
    return (signal * below).sum() / (signal.sum() * background[-1])


def samples(separation, *, scale=1.0, size=20_000, seed=1):
    rng = np.random.default_rng(seed)
    y = (rng.random(size) < 0.3).astype(np.float32)
    logits = (scale * (rng.normal(size=size) + separation * y)).astype(np.float32)
    return logits, y, rng.random(size).astype(np.float32) + 0.1


@pytest.mark.parametrize("separation", [-2.0, 0.0, 0.5, 2.0])
@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e20])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_area_equals_that_of_sorted_scores(separation, scale, weighted):
    logits, y, w = samples(separation, scale=scale)
    w = w if weighted else np.ones_like(w)
    assert auc(histogram_of(logits, y, w)) == pytest.approx(auc_by_ranks(logits, y, w), abs=1e-3)


def test_scores_with_ties_count_one_half():
    logits, y, w = samples(1.0)
    logits = np.round(logits)
    assert auc(histogram_of(logits, y, w)) == pytest.approx(auc_by_ranks(logits, y, w), abs=1e-12)


def test_separated_scores_give_1_and_constant_ones_give_a_half():
    y = np.array([0, 0, 1, 1])
    assert auc(histogram_of([-2, -1, 1, 2], y)) == 1.0
    assert auc(histogram_of([2, 1, -1, -2], y)) == 0.0
    assert auc(histogram_of([3, 3, 3, 3], y)) == 0.5


@pytest.mark.parametrize("y", [[], [0, 0], [1, 1, 1]])
def test_without_both_labels_there_is_no_area_and_no_curve(y):
    histogram = histogram_of(np.arange(len(y)), np.array(y))
    assert auc(histogram) is None
    assert roc(histogram).false_positive_rate.size == 0


@given(st.lists(FLOATS, min_size=1, max_size=50))
@num_examples(300)
def test_a_larger_logit_never_has_a_smaller_bin(logits):
    logits = np.sort(np.array(logits, dtype=np.float32))
    bins = bin_of(logits)
    assert (bins[1:] >= bins[:-1]).all()
    assert (bins >= 0).all()
    assert (bins < NUM_BINS).all()


@given(st.floats(np.float32(1e-30), np.float32(1e30), width=32), st.booleans())
def test_values_in_one_bin_differ_by_one_part_in_128_at_most(value, negative):
    value = np.float32(-value if negative else value)
    apart = np.float32(value * (1 + 1 / 127))
    assert bin_of(np.array([value])) != bin_of(np.array([apart]))


@given(
    st.integers(1, 40).flatmap(
        lambda n: st.tuples(
            hnp.arrays(np.float32, n, elements=FLOATS),
            hnp.arrays(np.float32, n, elements=st.sampled_from([0.0, 1.0])),
            hnp.arrays(np.float32, n, elements=st.sampled_from([0.5, 1.0, 2.0])),
            st.integers(0, n),
        )
    )
)
@num_examples(50)
def test_histograms_of_parts_add_up_to_that_of_the_whole(made):
    logits, y, w, cut = made
    whole = histogram_of(logits, y, w)
    parts = histogram_of(logits[:cut], y[:cut], w[:cut]) + histogram_of(
        logits[cut:], y[cut:], w[cut:]
    )
    np.testing.assert_array_equal(parts, whole)
    assert whole.sum() == w.sum(dtype=np.float64)


@given(st.integers(0, 2**31), st.integers(2, 3000), st.floats(-3, 3))
@num_examples(40)
def test_a_curve_rises_from_0_to_1_and_holds_the_area(seed, size, separation):
    logits, y, w = samples(separation, size=size, seed=seed)
    y[0], y[-1] = 0, 1
    histogram = histogram_of(logits, y, w)
    curve = roc(histogram)
    fpr, tpr = curve.false_positive_rate, curve.true_positive_rate
    assert (fpr[0], tpr[0]) == (0.0, 0.0)
    assert (fpr[-1], tpr[-1]) == (1.0, 1.0)
    assert (np.diff(fpr) >= 0).all()
    assert (np.diff(tpr) >= 0).all()
    assert 2 <= len(fpr) <= 300
    # A step between kept points is at most 1/100 or one bin, whichever is larger.
    area = np.trapezoid(tpr, fpr)
    assert area == pytest.approx(auc(histogram), abs=0.02)


def test_a_short_curve_is_kept_whole():
    histogram = histogram_of([-1, 0.5, 2, 4], [0, 1, 0, 1])
    curve = roc(histogram)
    assert curve.false_positive_rate.tolist() == [0, 0, 0.5, 0.5, 1]
    assert curve.true_positive_rate.tolist() == [0, 0.5, 0.5, 1, 1]
    area = np.trapezoid(curve.true_positive_rate, curve.false_positive_rate)
    assert area == auc(histogram) == 0.75
