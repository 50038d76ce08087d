import asyncio
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from served import as_json, make_array, make_bundle

from mlaas4hep_dask.bundle import open_bundle
from mlaas4hep_dask.encode import EncodeCounts, encode
from mlaas4hep_dask.errors import BundleError, BusyError, EventError, MLaaSError, UnknownModelError
from mlaas4hep_dask.events import Branch, Events
from mlaas4hep_dask.events.columns import fitted
from mlaas4hep_dask.events.events import offsets_of
from mlaas4hep_dask.events.records import events_of
from mlaas4hep_dask.score.opening import open_scorer
from mlaas4hep_dask.score.parts import SLICE, Columns, Records, parts_of_columns
from mlaas4hep_dask.score.service import Service


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "bundle"
    return path, make_bundle(path)


@pytest.fixture(scope="module")
def scorer(trained):
    return open_scorer(trained[0])


@pytest.fixture(scope="module")
def array():
    return make_array(100, seed=5)


@pytest.fixture(scope="module")
def expected(trained, array):
    path, network = trained
    encoded = encode(Events.from_awkward(array), open_bundle(path).encoding)
    with torch.no_grad():
        rows = torch.from_numpy(encoded.dense())
        return torch.sigmoid(network(rows)).numpy()[:, 0], encoded.counts


def events_with(events, name, change):
    return replace(events, contents={**events.contents, name: change(events.contents[name])})


# --- Scorer -------------------------------------------------------------------------------------


def test_columns_get_the_scores_of_the_trained_network(scorer, array, expected):
    scores = scorer.scores_of(Events.from_awkward(array))
    np.testing.assert_allclose(scores.values, expected[0], rtol=0, atol=1e-6)
    assert scores.counts == expected[1]
    assert scores.ignored == frozenset()


def test_many_columns_are_scored_in_parts_with_their_own_numbers(scorer):
    events = Events.from_awkward(make_array(2 * SLICE + 30, seed=6))
    parts = parts_of_columns(events)
    assert [part.num_events for part in parts] == [SLICE, SLICE, 30]
    scores = scorer.scores_of(events)
    apart = [scorer.scores_of(part.columns) for part in parts]
    np.testing.assert_array_equal(scores.values, np.concatenate([each.values for each in apart]))
    assert scores.counts == sum((each.counts for each in apart), EncodeCounts())

    def large(values):
        return np.where(np.arange(len(values)) == SLICE + 7, 1e300, values)

    with pytest.raises(EventError) as caught:
        scorer.scores_of(events_with(events, "mass", large))
    assert (caught.value.event, caught.value.branch) == (SLICE + 7, "mass")


def test_no_columns_have_no_scores(scorer, array):
    assert scorer.scores_of(Events.from_awkward(array[:0])).values.shape == (0,)


def test_other_columns_are_ignored_and_named(scorer, array, expected):
    events = Events.from_awkward(array)
    more = replace(
        events,
        branches=(*events.branches, Branch("run", "flat", "int64")),
        contents={**events.contents, "run": np.arange(len(events))},
    )
    scores = scorer.scores_of(more)
    assert scores.ignored == {"run"}
    np.testing.assert_allclose(scores.values, expected[0], rtol=0, atol=1e-6)


def test_columns_that_do_not_fit_are_refused_with_event_and_branch(scorer, array):
    events = Events.from_awkward(array)

    def large(values):
        return np.where(np.arange(len(values)) == 7, 1e300, values)

    with pytest.raises(EventError, match="too large to normalise") as caught:
        scorer.scores_of(events_with(events, "mass", large))
    assert (caught.value.event, caught.value.branch) == (7, "mass")
    few = [branch for branch in events.branches if branch.name != "mass"]
    with pytest.raises(EventError, match="branch 'mass': it is missing"):
        scorer.scores_of(replace(events, branches=tuple(few)))


def test_parts_of_any_forms_are_scored_together_as_alone(scorer, array, expected):
    records = as_json(array)
    records[2] = records[2] | {"PV_npvs": None}
    others = Events.from_awkward(array[40:60])
    parts = [
        Records(records[:5]),
        Columns(others),
        Columns(Events.from_awkward(array[60:61])),
        Records([records[5] | {"MET_pt": "x"}]),
        Records(records[6:10]),
        Columns(events_with(others, "mass", lambda values: values * 1e300), first=40),
    ]
    together = scorer.score(parts)
    for part, outcome in zip(parts, together, strict=True):
        (alone,) = scorer.score([part])
        if isinstance(alone, EventError):
            assert str(outcome) == str(alone)
            continue
        np.testing.assert_allclose(outcome.values, alone.values, rtol=0, atol=1e-6)
        assert outcome.counts == alone.counts
    assert (together[3].event, together[3].branch) == (0, "MET_pt")
    assert (together[5].event, together[5].branch) == (40, "mass")
    np.testing.assert_allclose(together[1].values, expected[0][40:60], rtol=0, atol=1e-6)


# --- Service ------------------------------------------------------------------------------------


def test_a_service_scores_requests_by_the_name_of_a_model(trained, array, expected):
    service = Service([trained[0]], stopping="closed")

    async def ask():
        with pytest.raises(BusyError, match="starting"):
            service.scorer("higgs")
        async with service.running():
            with pytest.raises(UnknownModelError, match="did you mean 'higgs'") as caught:
                service.scorer("higs")
            assert caught.value.nearest == "higgs"
            scores = await service.scores_of("higgs", [Columns(Events.from_awkward(array))])
        with pytest.raises(BusyError, match="closed"):
            await service.scores_of("higgs", [Columns(Events.from_awkward(array))])
        return scores

    np.testing.assert_allclose(asyncio.run(ask()).values, expected[0], rtol=0, atol=1e-6)


def test_a_service_refuses_two_models_of_one_name(trained):
    async def run():
        async with Service([trained[0], trained[0]], stopping="").running():
            pass

    with pytest.raises(BundleError, match="'higgs' is served already"):
        asyncio.run(run())


@pytest.mark.slow
def test_scoring_loads_no_protocol(trained):
    script = """
import sys
from mlaas4hep_dask.score.opening import open_scorer
from mlaas4hep_dask.score.service import Service
open_scorer(sys.argv[1])
print(*sys.modules)
"""
    command = [sys.executable, "-c", script, trained[0]]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert "mlaas4hep_dask.score.scorer" in loaded
    unwanted = {"starlette", "uvicorn", "httptools", "orjson", "dask", "distributed", "uproot"}
    assert not set(loaded) & {*unwanted, "mlaas4hep_dask.serve", "mlaas4hep_dask.train"}


def test_errors_of_scoring_know_no_status():
    for kind in (EventError, BusyError, UnknownModelError):
        assert issubclass(kind, MLaaSError)
        assert not hasattr(kind("no"), "status")


# --- Columns ------------------------------------------------------------------------------------

DTYPES = ("bool", "int8", "uint8", "int32", "uint64", "float32", "float64")
numbers = st.one_of(
    st.integers(-300, 300),
    st.sampled_from([2**31, -(2**31), 2**32, 2**63, 3.4028235e38, 1e39, 1e300, 0.5, 1.0, 0.0]),
    st.floats(-10, 10),
)


def outcome_of(make):
    try:
        return make(), None
    except EventError as error:
        return None, (error.event, error.branch)


@given(values=st.lists(numbers, min_size=1, max_size=5), dtype=st.sampled_from(DTYPES))
def test_columns_and_records_of_the_same_numbers_are_the_same_events(values, dtype):
    branch = Branch("x", "flat", dtype)
    column = np.array(values, dtype=np.float64)
    source = Branch("x", "flat", "float64")
    sent = Events(len(values), (source,), {"x": column}, {})
    records, problem = outcome_of(
        lambda: events_of([{"x": value} for value in column.tolist()], [branch])
    )
    columns, other_problem = outcome_of(lambda: fitted(sent, [branch]))
    assert problem == other_problem
    if problem is None:
        assert columns.branches == records.branches
        np.testing.assert_array_equal(columns.contents["x"], records.contents["x"])


def test_a_missing_value_of_a_whole_number_is_kept_in_columns():
    branch = Branch("x", "flat", "int32")
    sent = Events(2, (Branch("x", "flat", "float32"),), {"x": np.float32([np.nan, 3])}, {})
    events = fitted(sent, [branch])
    assert events.branches == (replace(branch, dtype="float64"),)
    np.testing.assert_array_equal(events.contents["x"], [np.nan, 3])


def jets(**multiplicities):
    branches = [Branch(f"{n}", "jagged", "float32", n) for n in multiplicities]
    contents = {n: np.zeros(sum(m), np.float32) for n, m in multiplicities.items()}
    offsets = {n: offsets_of(np.array(m)) for n, m in multiplicities.items()}
    return Events(2, tuple(branches), contents, offsets)


def test_columns_of_one_collection_have_the_same_multiplicities():
    branches = [Branch("a", "jagged", "float32", "J"), Branch("b", "jagged", "float32", "J")]
    events = fitted(jets(a=[1, 2], b=[1, 2]), branches)
    assert events.offsets["J"].tolist() == [0, 1, 3]
    with pytest.raises(EventError, match=r"event 11, branch 'b': it has another number") as caught:
        fitted(jets(a=[1, 2], b=[1, 1]), branches, first=10)
    assert (caught.value.event, caught.value.branch) == (11, "b")
    with pytest.raises(EventError, match="branch 'a': it is jagged, not flat"):
        fitted(jets(a=[1, 2]), [Branch("a", "flat", "float32")])
    with pytest.raises(EventError, match="branch 'A': it is missing; did you mean 'a'"):
        fitted(jets(a=[1, 2]), [Branch("A", "jagged", "float32", "J")])
