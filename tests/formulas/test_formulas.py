import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mlaas4hep_dask.errors import either
from mlaas4hep_dask.formulas import FUNCTIONS, NAMES, SCALES, parts_of
from mlaas4hep_dask.formulas.compiled import normalise_function, values_of

VALUES = st.lists(st.floats(-1e30, 1e30), min_size=1, max_size=50).map(np.array)


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
@given(values=VALUES)
@settings(deadline=None)
def test_the_inverse_of_a_function_gives_the_values_back(function, values):
    usable = values > function.above
    found = function.inverse(values_of(function.code, values))
    np.testing.assert_allclose(found[usable], values[usable], rtol=1e-12, atol=1e-15)
    assert np.isnan(values_of(function.code, values)[~usable]).all()


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
@given(values=VALUES)
@settings(deadline=None)
def test_a_function_is_the_same_in_training_and_in_a_bundle(function, values):
    values = values[values > function.above]
    found = function.in_torch(torch.from_numpy(values)).numpy()
    np.testing.assert_allclose(found, values_of(function.code, values), rtol=1e-14)


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
@given(values=VALUES)
@settings(deadline=None)
def test_a_function_keeps_the_order_of_values(function, values):
    values = np.sort(values[values > function.above])
    assert (np.diff(values_of(function.code, values)) >= 0).all()


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_values_that_a_function_does_not_have_are_counted_as_missing_alone(function):
    values = np.array([np.nan, np.inf, -np.inf, 2.0, max(function.above, -1e300)])
    out = np.empty(values.size, dtype=np.float32)
    own = math.isfinite(function.above)
    counts = normalise_function(values, function.code, function.above, 0, 1, 1.0, 3.0, False, out)
    assert counts == (3 + own, 1 - own)
    assert np.isfinite(out).tolist() == [False, False, False, True, not own]


def test_no_two_functions_share_a_code():
    assert len({function.code for function in FUNCTIONS.values()}) == len(FUNCTIONS)


def test_every_name_is_a_scale_behind_a_function_or_alone():
    found = {
        (None if function is None else function.name, scale)
        for function, scale in map(parts_of, NAMES[1:])
    }
    assert len(found) == len(NAMES) - 1
    assert found == {(name, scale) for name in (None, *FUNCTIONS) for scale in SCALES.values()}


def test_names_in_a_sentence_are_joined_by_or():
    assert [either("a"), either("ab"), either("abc")] == ["a", "a or b", "a, b or c"]
