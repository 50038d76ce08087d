import json
from itertools import pairwise

import awkward as ak
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import num_examples

from mlaas4hep_dask.dataset.binning import NUM_BINS, bins_of, equal_edges, filled, populations
from mlaas4hep_dask.encode import Encoding, decode, encode
from mlaas4hep_dask.encode.automatic import automatic
from mlaas4hep_dask.encode.split import event_ids
from mlaas4hep_dask.events import Events
from mlaas4hep_dask.report.charts import separation
from mlaas4hep_dask.specs import Specs
from mlaas4hep_dask.specs.measure import measure
from mlaas4hep_dask.specs.specs import merge_all

rng = np.random.default_rng(5)
SHAPES = {
    "momentum": 20 * (1 + rng.pareto(2.2, 3_000)),
    "angle": rng.uniform(-np.pi, np.pi, 3_000),
    "bell": rng.normal(0, 1.5, 3_000),
    "isolation": np.where(rng.random(3_000) < 0.7, 0, rng.exponential(0.05, 3_000)),
    "peak": np.where(rng.random(3_000) < 0.3, rng.normal(91, 3, 3_000), rng.exponential(60, 3_000)),
    "count": rng.poisson(3, 3_000).astype(float),
    "flag": (rng.random(3_000) < 0.1).astype(float),
    "placeholder": np.where(rng.random(3_000) < 0.4, -999.0, rng.normal(0, 1, 3_000)),
    "offset": rng.normal(1e6, 1, 3_000),
    "tiny": 1e-9 * rng.gamma(2, 1, 3_000),
    "probability": rng.beta(0.3, 0.4, 3_000),
    "absent": np.where(rng.random(3_000) < 0.7, -999.0, 30 + rng.gamma(4, 10, 3_000)),
    "two placeholders": np.choose(
        rng.choice(3, 3_000, p=[0.2, 0.1, 0.7]),
        [np.full(3_000, -999.0), np.full(3_000, -99.0), rng.beta(0.5, 1, 3_000)],
    ),
}
OUTLIERS = (3e38, -3e38, 1e7, -999.0)


def specs_of(values, **more):
    return measure(Events.from_awkward(ak.Array({"x": values})), sample="s", **more)


def rows_of(values, seen=None):
    """Rows of ``values`` by the specs of ``seen``, with those of one branch."""
    encoding = Encoding.from_specs(specs_of(values if seen is None else seen))
    return encode(Events.from_awkward(ak.Array({"x": values})), encoding).dense()[:, 0]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("outlier", OUTLIERS)
def test_one_absurd_value_moves_the_rows_of_no_other(shape, outlier):
    values = SHAPES[shape]
    clean, hurt = rows_of(values), rows_of(np.append(values, outlier))
    spread = clean.std()
    assert 0.3 < spread < 3
    np.testing.assert_allclose(hurt[:-1], clean, atol=0.35 * spread)
    assert abs(hurt).max() < 40


@pytest.mark.parametrize("shape", SHAPES)
def test_zero_is_a_typical_value_and_most_rows_are_near_it(shape):
    rows = rows_of(SHAPES[shape])
    assert abs(np.median(rows)) < 0.1
    assert np.quantile(abs(rows), 0.99) < 6


@pytest.mark.parametrize("shape", SHAPES)
def test_the_numbers_do_not_depend_on_how_events_were_cut_into_partitions(shape):
    values = np.tile(SHAPES[shape], 3)
    ids = event_ids("6a1e0d2a-9c0b-11ef-8a4a-000000000000", 0, values.size)
    whole = specs_of(values, ids=ids)
    cuts = [0, 10, 2_500, 7_000, values.size]
    parts = [specs_of(values[a:b], ids=ids[a:b]) for a, b in pairwise(cuts)]
    for order in (parts, parts[::-1]):
        assert automatic(merge_all(order).branches["x"]) == automatic(whole.branches["x"])


NUMBERS = (
    st.floats(-1e308, 1e308)
    | st.sampled_from([np.nan, np.inf, -np.inf])
    | st.sampled_from([0.0, 5e-324, -5e-324, 1.0, np.nextafter(1, 2), -999.0])
    | st.sampled_from([1e308, -1e308, 3e38, 1e20, 1.7e18])
)


@given(st.lists(NUMBERS, min_size=1, max_size=60), st.lists(NUMBERS, max_size=5))
@num_examples(300)
def test_any_values_get_finite_rows_in_order_that_lead_back(values, others):
    given = np.array(values)
    encoding = Encoding.from_specs(specs_of(given))
    encoded = encode(Events.from_awkward(ak.Array({"x": given})), encoding)
    x, missing = encoded.dense(), encoded.missing()
    assert np.isfinite(x).all()
    assert abs(x).max() < 1e3
    finite = np.isfinite(given)
    np.testing.assert_array_equal(missing[:, 0], ~finite)
    order = np.argsort(given[finite], kind="stable")
    assert (np.diff(x[finite, 0][order]) >= 0).all()
    back = ak.to_numpy(decode(x, missing, encoding).x)[finite]
    again = encode(Events.from_awkward(ak.Array({"x": back})), encoding).dense()[:, 0]
    np.testing.assert_allclose(again, x[finite, 0], rtol=1e-5, atol=1e-5)
    outside = np.array([*others, 0.0])
    rows = encode(Events.from_awkward(ak.Array({"x": outside})), encoding).dense()[:, 0]
    assert not np.isnan(rows).any()


@pytest.mark.parametrize(
    ("values", "about"),
    [
        (np.full(9, 1_700_000_000_000_000_000), "constant"),
        (np.full(9, 1e20, np.float32), "constant"),
        (np.full(9, np.nan), "no value"),
        (SHAPES["angle"], "linear"),
        (SHAPES["bell"], "linear"),
        (SHAPES["offset"], "linear"),
        (SHAPES["flag"], "2 values"),
        (np.append(SHAPES["angle"], -999.0), "linear, log tails"),
        (SHAPES["peak"], "linear"),
        (SHAPES["probability"], "normal scores"),
        (np.append(SHAPES["placeholder"], 3e38), "linear, log tails"),
        (np.append(SHAPES["momentum"], 24_000.0), "normal scores, log tails"),
    ],
)
def test_every_branch_says_what_was_chosen(values, about):
    specs = specs_of(values)
    assert automatic(specs.branches["x"])["about"] == f"auto: {about}"
    (scaling,) = Encoding.from_specs(specs).scalings
    assert scaling.about == f"auto: {about}"


@pytest.mark.parametrize(
    "values",
    [
        rng.uniform(0.6, 2.9, 3_000),
        np.where(
            rng.random(3_000) < 0.4, rng.normal(0.8, 0.02, 3_000), rng.uniform(0.6, 2.9, 3_000)
        ),
        rng.exponential(30, 3_000),
        rng.normal(0, 1, 3_000),
    ],
)
@pytest.mark.parametrize("outlier", [0.6, -1e30, 1e30])
def test_short_tails_keep_distances_also_beside_an_outlier(values, outlier):
    # As in the data: a curve through straight ends of a phase space would have to be learned.
    rows = rows_of(np.append(values, outlier))[:-1]
    assert np.corrcoef(rows, values)[0, 1] > 0.999
    width = np.diff(np.quantile(rows, [0.005, 0.995]))
    assert width == pytest.approx(2 * 2.576, rel=0.1)


@pytest.mark.parametrize("shape", ["momentum", "bell", "angle", "peak", "tiny", "probability"])
def test_the_bulk_of_every_branch_is_equally_wide(shape):
    width = np.diff(np.quantile(rows_of(SHAPES[shape]), [0.005, 0.995]))
    assert width == pytest.approx(2 * 2.576, rel=0.1)


@pytest.mark.parametrize("outliers", [[], [-3e38], [3e38], [-1e9, 1e9]])
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("shape", ["placeholder", "absent", "two placeholders"])
def test_placeholders_stand_beside_the_values_whatever_is_beyond(shape, sign, outliers):
    given = sign * SHAPES[shape]
    rows = sign * rows_of(np.append(given, outliers))[: given.size]
    is_there = SHAPES[shape] > -99
    own = rows[is_there]
    for placeholder in np.unique(SHAPES[shape][~is_there]):
        (far,) = np.unique(rows[SHAPES[shape] == placeholder])
        assert 0.05 < np.quantile(own, 0.01) - far < 2.0
    # They take no room of the others.
    assert np.diff(np.quantile(own, [0.005, 0.995])) == pytest.approx(2 * 2.576, rel=0.1)


@pytest.mark.parametrize("share", [0.5, 0.9, 0.989, 0.992, 0.996, 0.9995])
def test_many_equal_values_leave_rows_finite_and_small(share):
    values = np.where(rng.random(4_000) < share, 0.0, rng.exponential(0.05, 4_000))
    for shift in (0.0, -999.0, 1e6):
        rows = rows_of(values + shift)
        assert np.isfinite(rows).all()
        assert abs(rows).max() < 12
        assert (np.diff(rows[np.argsort(values, kind="stable")]) >= 0).all()


@given(
    st.lists(st.floats(-1.7e308, 1.7e308), min_size=30, max_size=60, unique=True),
    st.integers(0, 400),
    NUMBERS.filter(np.isfinite),
)
@num_examples(100)
def test_many_equal_values_among_any_get_finite_rows_in_order(values, times, same):
    given = np.array([*values, *[same] * times])
    rows = rows_of(given)
    assert np.isfinite(rows).all()
    assert abs(rows).max() < 1e3
    # but for rounding, where a piece is 1e300 long and a value beside its end
    assert (np.diff(rows[np.argsort(given, kind="stable")]) >= -1e-6).all()


def test_constants_become_0_however_large_they_are():
    for values in (np.full(9, 1_700_000_000_000_000_000), np.full(9, 1e20, np.float32)):
        assert not rows_of(values).any()


def test_small_differences_far_from_0_are_kept():
    values = 1.6e9 + np.linspace(-30, 30, 2_000)
    rows = rows_of(values)
    assert (np.diff(rows) > 0).all()
    assert rows.std() > 0.5


def test_in_the_cells_of_an_image_0_stays_0_and_outliers_do_not_dim_the_rest():
    values = np.append(SHAPES["momentum"], 24_000.0)
    how = automatic(specs_of(values).branches["x"], is_shown=True)
    scaled = np.interp([0.0, 20.0, 100.0, 24_000.0], how["x"], how["y"])
    assert scaled[0] == 0
    assert 0 < scaled[1] < scaled[2]
    assert scaled[3] < 5


def test_the_choice_survives_json_and_specs_of_a_file():
    specs = specs_of(SHAPES["peak"])
    again = Specs.from_json(specs.to_json())
    assert automatic(again.branches["x"]) == automatic(specs.branches["x"])
    numbers = json.loads(json.dumps(automatic(specs.branches["x"])))
    assert Encoding.from_specs(specs, normalisation={"x": numbers}) == Encoding.from_specs(specs)


def compared(a, b):
    """The separation of two groups of values as the report finds it."""
    own = bins_of(specs_of(np.concatenate([a, b])))["x"]
    return separation(*(populations(v, np.ones(v.size), own).tolist() for v in (a, b)))


def test_one_outlier_does_not_hide_what_separates():
    a, b = rng.normal(0, 1, 2_000), rng.normal(3, 1, 2_000)
    clean = compared(a, b)
    assert clean > 0.6
    assert compared(np.append(a, 1e7), b) == pytest.approx(clean, abs=0.02)
    labels = np.zeros(2_000), np.append(np.ones(2_000), 1e7)
    assert compared(*labels) == pytest.approx(1.0, abs=0.01)


def test_equal_groups_are_not_separated_whatever_their_values():
    for values in SHAPES.values():
        assert compared(values, values) == 0


def test_weights_count_in_the_separation():
    own = bins_of(specs_of(np.array([0.0, 1.0])))["x"]
    both = np.array([0.0, 1.0])
    a = populations(both, np.array([3.0, 1.0]), own)
    b = populations(both, np.array([1.0, 3.0]), own)
    assert separation(a, b) == pytest.approx(((0.5**2) / 1 + (0.5**2) / 1) / 2)


def test_the_picture_leaves_outliers_out_and_counts_them():
    values = np.append(SHAPES["bell"], [1e7, -1e9, -1e9])
    own = bins_of(specs_of(values))["x"]
    counts, outside = filled(values, np.ones(values.size), own)
    assert own.high - own.low < 20
    assert outside[0] >= 2
    assert outside[1] >= 1
    assert counts.sum() + sum(outside) == values.size


@given(st.lists(NUMBERS.filter(np.isfinite), min_size=1, max_size=80))
@num_examples(300)
def test_bins_of_any_values_have_a_width_and_hold_all_values(values):
    given = np.array(values)
    own = bins_of(specs_of(given))["x"]
    edges = equal_edges(own.low, own.high)
    assert (np.diff(edges) > 0).all()
    counts, outside = filled(given, np.ones(given.size), own)
    assert counts.size == NUM_BINS
    assert counts.sum() + sum(outside) == given.size
    assert populations(given, np.ones(given.size), own).sum() == given.size
