"""Weights of a training, from sums that were measured."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlaas4hep_dask.config import Sample
from mlaas4hep_dask.errors import DataError
from mlaas4hep_dask.inputs.supervision import Supervision
from mlaas4hep_dask.inputs.weighting import class_sums, factors_of, training_weights
from mlaas4hep_dask.objective import BINARY
from mlaas4hep_dask.specs import SampleSpecs

positive = st.floats(1e-3, 1e6)
SUPERVISION = Supervision(BINARY, labels={"ttH": 1, "QCD": 0}, samples=("ttH", "QCD"))


def section(name, **keys):
    return Sample(name=name, files=["a.root"], label=SUPERVISION.labels[name], **keys)


@given(st.integers(1, 10**9), positive, positive, positive)
def test_the_weights_of_a_sample_sum_to_its_cross_section(num_read, weight, xs, lumi):
    measured = {"ttH": SampleSpecs(num_read, num_read, float(num_read))}
    samples = [section("ttH", weight=weight, cross_section=xs)]
    factors = factors_of(samples, measured, weight=None, luminosity=lumi)
    assert factors["ttH"] * num_read == pytest.approx(weight * xs * lumi)
    without = factors_of([section("ttH", weight=weight)], measured, weight=None, luminosity=None)
    assert without == {"ttH": weight}


def test_a_cross_section_is_not_divided_by_a_sum_that_is_not_positive():
    measured = {"ttH": SampleSpecs(3, 3, -1.0)}
    samples = [section("ttH", cross_section=2.0)]
    with pytest.raises(DataError, match="the weights 'w' of its 3 events sum to -1"):
        factors_of(samples, measured, weight="w", luminosity=None)


@given(st.integers(1, 10**6), st.integers(1, 10**6), positive, positive)
def test_balance_gives_both_classes_one_sum_and_keeps_that_of_all(signal, background, one, other):
    samples = {
        "ttH": SampleSpecs(signal, signal, float(signal)),
        "QCD": SampleSpecs(background, background, float(background)),
    }
    num_train = {"ttH": signal, "QCD": background}
    sums = class_sums(SUPERVISION, samples, num_train)
    factors = {"ttH": one, "QCD": other}
    plain = training_weights(SUPERVISION, factors, sums, balanced=False)
    total = one * signal + other * background
    assert plain.balance == ()
    assert plain.mean == pytest.approx(total / (signal + background))
    balance, mean = training_weights(SUPERVISION, factors, sums, balanced=True)
    assert balance[0] * other * background == pytest.approx(balance[1] * one * signal)
    assert mean == pytest.approx(plain.mean)


def test_weights_that_sum_to_nothing_are_refused():
    sums = class_sums(SUPERVISION, {"ttH": SampleSpecs(2, 2, 2.0)}, {"ttH": 2})
    with pytest.raises(DataError, match="a mean loss needs a positive sum"):
        training_weights(SUPERVISION, {"ttH": 0.0}, sums, balanced=False)
    with pytest.raises(DataError, match="only a positive sum can be balanced"):
        training_weights(SUPERVISION, {"ttH": 1.0}, sums, balanced=True)
