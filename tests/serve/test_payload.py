import json
import pickle

import awkward as ak
import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlaas4hep_dask.errors import EncodeError, EventError, PayloadError, TooLargeError
from mlaas4hep_dask.events import Branch, Events
from mlaas4hep_dask.events.records import MAX_IGNORED, events_of, extra_names
from mlaas4hep_dask.score.parts import SLICE, SLICE_VALUES
from mlaas4hep_dask.serve.answers import STATUSES
from mlaas4hep_dask.serve.parts import INLINE_BYTES, parts_of
from mlaas4hep_dask.serve.payload import MAX_EVENTS, records_in

BRANCHES = (
    Branch("HLT", "flat", "bool"),
    Branch("MET_pt", "flat", "float32"),
    Branch("mass", "flat", "float64"),
    Branch("run", "flat", "uint32"),
    Branch("Jet_id", "jagged", "int8", "Jet"),
    Branch("Jet_pt", "jagged", "float32", "Jet"),
)
EVENT = {
    "HLT": True,
    "MET_pt": 31.2,
    "mass": 1e300,
    "run": 4294967295,
    "Jet_id": [-128, 127],
    "Jet_pt": [50.1, 33],
}


def events_from_json(body, branches):
    return events_of(records_in(body), branches)


def body_of(*events):
    return orjson.dumps({"events": events})


def problem_with(*events):
    with pytest.raises(PayloadError) as caught:
        events_from_json(body_of(*events), BRANCHES)
    assert type(caught.value) is EventError
    return caught.value


def test_events_of_json_are_those_of_the_file():
    array = ak.Array(
        {
            "MET_pt": np.array([31.2, 1e-3, 7.0], np.float32),
            "run": np.array([1, 2, 3], np.int32),
            "Jet_pt": ak.values_astype(ak.Array([[50.1, 33.3], [], [1.1]]), np.float32),
            "Jet_q": ak.values_astype(ak.Array([[1, -1], [], [0]]), np.int8),
        }
    )
    expected = Events.from_awkward(array)
    body = json.dumps({"events": ak.to_list(array)}).encode()
    found = events_from_json(body, expected.branches)
    assert found.branches == expected.branches
    assert found.num_events == 3
    for name, content in expected.contents.items():
        assert found.contents[name].dtype == content.dtype
        np.testing.assert_array_equal(found.contents[name], content)
    np.testing.assert_array_equal(found.offsets["Jet"], expected.offsets["Jet"])


def test_a_decimal_becomes_the_float32_that_the_file_holds():
    events = events_from_json(body_of(EVENT), BRANCHES)
    assert events.contents["MET_pt"][0] == np.float32(31.2)
    assert float(events.contents["MET_pt"][0]) != 31.2


def test_no_events_are_events_too():
    events = events_from_json(b'{"events": []}', BRANCHES)
    assert len(events) == 0
    assert events.offsets["Jet"].tolist() == [0]
    assert all(content.size == 0 for content in events.contents.values())


def test_null_is_a_missing_value_in_branches_of_every_dtype():
    nulls = {name: [None, None] if name.startswith("Jet") else None for name in EVENT}
    events = events_from_json(body_of(EVENT, nulls), BRANCHES)
    for name, content in events.contents.items():
        half = content.size // 2
        assert np.isnan(content[half:]).all(), name
        np.testing.assert_allclose(content[:half], EVENT[name], rtol=1e-6)


def test_zero_and_one_are_booleans_and_whole_floats_are_integers():
    event = EVENT | {"HLT": 1, "run": 7.0, "Jet_id": [1.0, -2]}
    events = events_from_json(body_of(event), BRANCHES)
    assert events.contents["HLT"].tolist() == [True]
    assert events.contents["run"].tolist() == [7]
    assert events.contents["Jet_id"].tolist() == [1, -2]


def test_integers_of_64_bits_keep_their_last_digit():
    branch = Branch("event", "flat", "uint64")
    events = events_from_json(body_of({"event": 2**64 - 1}), [branch])
    assert int(events.contents["event"][0]) == 2**64 - 1


@pytest.mark.parametrize(
    ("change", "branch", "message"),
    [
        ({"MET_pt": "31.2"}, "MET_pt", "expected a number, got '31.2'"),
        ({"MET_pt": True}, "MET_pt", "expected a number, got true"),
        ({"MET_pt": {"value": 1}}, "MET_pt", "expected a number, got an object"),
        ({"MET_pt": [31.2]}, "MET_pt", "expected a number, got a list of 1"),
        ({"MET_pt": 1e39}, "MET_pt", "1e+39 is beyond the range of float32"),
        ({"HLT": 2}, "HLT", "expected true or false, got 2"),
        ({"HLT": "yes"}, "HLT", "expected true or false, got 'yes'"),
        ({"run": 1.5}, "run", "1.5 is not a whole number, which the branch's uint32 needs"),
        ({"run": -1}, "run", "-1 is beyond the range of uint32"),
        ({"run": 2**32}, "run", "4294967296 is beyond the range of uint32"),
        ({"run": False}, "run", "expected a number, got false"),
        ({"run": 1e300}, "run", "1e+300 is beyond the range of uint32"),
        ({"Jet_id": [1, 128]}, "Jet_id", "value 1: 128 is beyond the range of int8"),
        ({"Jet_id": [None, 1.5]}, "Jet_id", "value 1: 1.5 is not a whole number"),
        ({"Jet_pt": 50.1}, "Jet_pt", "expected a list of numbers, got 50.1"),
        ({"Jet_pt": None}, "Jet_pt", "expected a list of numbers, got null"),
        ({"Jet_pt": "ab"}, "Jet_pt", "expected a list of numbers, got 'ab'"),
        ({"Jet_pt": {"0": 1}}, "Jet_pt", "expected a list of numbers, got an object"),
        ({"Jet_pt": [1, [2]]}, "Jet_pt", "value 1: expected a number, got a list of 1"),
        ({"Jet_pt": [1, "2"]}, "Jet_pt", "value 1: expected a number, got '2'"),
        (
            {"Jet_pt": [1, 2, 3]},
            "Jet_pt",
            "it has 3 values but 'Jet_id' has 2; both belong to the collection 'Jet'",
        ),
    ],
)
def test_an_event_that_does_not_fit_is_named_with_its_branch(change, branch, message):
    error = problem_with(EVENT, EVENT | change, EVENT)
    assert (error.event, error.branch) == (1, branch)
    assert str(error).startswith(f"event 1, branch {branch!r}")
    assert message in str(error)


def test_a_misspelt_branch_is_missing_and_the_near_name_is_told():
    event = {("Jet_Pt" if name == "Jet_pt" else name): value for name, value in EVENT.items()}
    error = problem_with(EVENT, event)
    assert (error.event, error.branch) == (1, "Jet_pt")
    assert str(error) == "event 1, branch 'Jet_pt': it is missing; did you mean 'Jet_Pt'?"


@pytest.mark.parametrize("event", [[1], "event", 3, None, True])
def test_an_event_that_is_no_object_is_named(event):
    error = problem_with(EVENT, event)
    assert (error.event, error.branch) == (1, None)
    assert "event 1: expected an object" in str(error)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "the body is not JSON"),
        (b"{", "the body is not JSON"),
        (b'{"events": [\xff]}', "not valid UTF-8"),
        (b'{"events": [{"a": "\\ud800"}]}', "surrogate"),
        (b"[" * 5000, "depth limit"),
        (b'{"events": ' + b"[" * 5000 + b"]" * 5000 + b"}", "depth limit"),
        (b'{"events": [1' + b"0" * 400 + b"]}", "infinity when parsed"),
        (b'{"events": [1e999]}', "infinity when parsed"),
        (b'{"events": [NaN]}', "write null for a missing value"),
        (b'{"events": [-Infinity]}', "write null for a missing value"),
        (b"[]", 'expected {"events": [...]}, got a list of 0'),
        (b"{}", "got an empty object"),
        (b'{"events": {}}', "a list of events, got an object"),
        (
            b'{"event": []}',
            "unknown key 'event'; the only key is \"events\"; did you mean 'events'?",
        ),
        (b'{"events": [], "name": 1}', "unknown key 'name'"),
    ],
)
def test_a_body_of_another_shape_is_refused(body, message):
    with pytest.raises(PayloadError) as caught:
        events_from_json(body, BRANCHES)
    assert type(caught.value) is PayloadError
    assert (caught.value.event, caught.value.branch) == (None, None)
    assert message in str(caught.value)


def test_too_many_events_are_refused():
    with pytest.raises(TooLargeError, match="3 events in one request; send at most 2"):
        records_in(body_of(EVENT, EVENT, EVENT), max_events=2)


def test_the_last_of_two_equal_keys_counts():
    body = b'{"events": [{"MET_pt": 1, "MET_pt": 2}]}'
    events = events_from_json(body, [Branch("MET_pt", "flat", "float32")])
    assert events.contents["MET_pt"].tolist() == [2.0]


def test_messages_never_repeat_much_of_the_body():
    long = "x" * 100_000
    for body in (body_of(EVENT | {"MET_pt": long}), body_of(long), orjson.dumps({long: 1})):
        with pytest.raises(PayloadError) as caught:
            events_from_json(body, BRANCHES)
        assert len(str(caught.value)) < 300


def test_names_of_extra_branches_are_told_once_each_and_not_without_end():
    assert extra_names([EVENT, EVENT], BRANCHES) == set()
    assert extra_names([EVENT, EVENT | {"luminosityBlock": 3}], BRANCHES) == {"luminosityBlock"}
    many = EVENT | {f"{i}{'x' * 1000}": 0 for i in range(5000)}
    names = extra_names([many], BRANCHES)
    assert len(names) == MAX_IGNORED
    assert max(map(len, names)) <= 100


def test_payload_errors_survive_pickling():
    error = problem_with(EVENT | {"MET_pt": "x"})
    again = pickle.loads(pickle.dumps(error))  # noqa: S301  # our own bytes
    assert type(again) is EventError
    assert isinstance(again, EncodeError)
    assert str(again) == str(error)
    assert (again.event, again.branch) == (0, "MET_pt")


scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=3)
    | st.sampled_from([0, 1, -1, 127, 128, 1.0, 3.4028235e38, 3.4028235677973366e38, 1e39])
)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3), max_leaves=4)
near_events = st.builds(
    lambda changes: EVENT | changes, st.dictionaries(st.sampled_from(sorted(EVENT)), values)
)


def outcome_of(*events):
    try:
        return events_from_json(body_of(*events), BRANCHES), None
    except PayloadError as error:
        return None, error


@given(st.lists(near_events | values, max_size=4))
def test_the_event_that_is_named_is_the_first_that_is_refused_alone(events):
    found, error = outcome_of(*events)
    alone = [outcome_of(event)[1] for event in events]
    guilty = [(number, each.branch) for number, each in enumerate(alone) if each is not None]
    assert (found is None) == bool(guilty)
    if error is not None:
        assert (type(error), error.event, error.branch) == (EventError, *guilty[0])


@given(st.lists(near_events, max_size=4))
def test_every_value_is_taken_exactly_or_refused(events):
    found, _ = outcome_of(*events)
    if found is None:
        return
    for branch in BRANCHES:
        column = [event[branch.name] for event in events]
        if branch.kind == "jagged":
            column = [value for values in column for value in values]
        expected = [np.nan if value is None else float(value) for value in column]
        with np.errstate(over="ignore"):
            expected = np.array(expected).astype(
                "float64" if branch.dtype != "float32" else "float32"
            )
        np.testing.assert_array_equal(found.contents[branch.name].astype("float64"), expected)


# --- Requests in parts --------------------------------------------------------------------------

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-9, 9) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=20,
)
PADDING = b" " * INLINE_BYTES  # makes a request a large one, which is cut before it is parsed


def all_of(parts):
    return [value for part in parts for value in part.loaded().records]


@settings(deadline=None)  # the first compiles
@given(events=st.lists(json_values, max_size=30), indent=st.sampled_from([None, 1]))
def test_the_parts_of_a_large_request_are_its_events(events, indent):
    body = bytearray(json.dumps({"events": events}, indent=indent).encode() + PADDING)
    parts = parts_of(body)
    assert all_of(parts) == events
    assert sum(part.num_events for part in parts) == len(events)
    sizes = [part.num_events for part in parts]
    assert [part.first for part in parts] == [sum(sizes[:i]) for i in range(len(sizes))]


@settings(deadline=None)
@given(
    events=st.lists(json_values, max_size=6),
    place=st.floats(0, 1),
    change=st.sampled_from([b"", *(bytes([c]) for c in b'",:[]{}\\ 0x\n\x00\xff')]),
    removed=st.integers(0, 2),
)
def test_a_large_request_is_refused_when_its_json_is(events, place, change, removed):
    text = json.dumps({"events": events}).encode()
    begin = int(place * len(text))
    body = bytearray(text[:begin] + change + text[begin + removed :] + PADDING)
    try:
        expected = records_in(bytes(body))
    except PayloadError:
        with pytest.raises(PayloadError) as caught:
            all_of(parts_of(body))
        assert type(caught.value) is PayloadError
    else:
        assert all_of(parts_of(body)) == expected


def test_the_parts_of_a_large_request_are_small():
    event = {"MET_pt": 1.5, "Jet_pt": [1.5] * 20}
    rich = {"MET_pt": 1.5, "Jet_pt": [1.5] * 50_000}
    for events in ([event] * 3000, [rich] * 5, [event, rich] * 4):
        parts = parts_of(bytearray(json.dumps({"events": events}).encode()))
        assert all_of(parts) == events
        assert len(parts) > 1
        for part in parts:
            assert part.num_events <= SLICE
            assert part.num_values <= SLICE_VALUES or part.num_events == 1


@pytest.mark.parametrize(
    ("text", "status", "message"),
    [
        (b'{"events": [1, 2', 400, "unexpected end of the list of events"),
        (b'{"events": [1, 2}', 400, "unexpected end of the list of events"),
        (b'{"events": [1, 2]', 400, "nothing after byte 17"),
        (b'{"events": [1, 2]} 3', 400, "nothing after byte 17"),
        (b'{"events": [1, 2], "name": 3}', 400, "unknown key 'name'"),
        (b'{"event": [1, 2]}', 400, "did you mean 'events'?"),
        (b'{"events": {}}', 400, "a list of events"),
        (b"[1, 2]", 400, "a list of events"),
        (b'{"events": [1, 2,]}', 400, "not JSON"),
        (b'{"events": [, 1]}', 400, "not JSON"),
        (b'{"events": [:]}', 400, "not JSON"),
        (b'{"events": [1, NaN]}', 400, "write null for a missing value"),
        (b'{"events": [1, "\xff"]}', 400, "not valid UTF-8"),
        (b'{"events": [1, "\\ud800"]}', 400, "surrogate"),
        (b'{"events": [1, 1e999]}', 400, "infinity"),
        (b'{"events": [%b]}' % (b"[" * 5000 + b"]" * 5000), 400, "depth limit"),
        (b'{"events": [1, {"a": [%b]}]}' % b",".join([b"0"] * 200_001), 413, "event 1: more than"),
        (
            b'{"events": [{%b}]}' % b",".join(b'"%d":0' % i for i in range(10_001)),
            413,
            "event 0: more than 10000 names",
        ),
        (b'{"events": [%b0]}' % (b"0," * MAX_EVENTS), 413, f"{MAX_EVENTS + 1} events in one"),
        (b'{"events": [%b]}' % b",".join([b"[%b]" % b",".join([b"[]"] * 99)] * 9999), 413, "about"),
    ],
)
def test_a_large_request_of_another_shape_is_refused(text, status, message):
    with pytest.raises(PayloadError) as caught:
        all_of(parts_of(bytearray(text + PADDING)))
    assert STATUSES[type(caught.value)] == status
    assert message in str(caught.value)


@pytest.mark.parametrize("number", [1, 40_000])
def test_one_bad_value_after_very_many_is_named(number):
    jets = [1.5] * number
    event = {**EVENT, "Jet_id": [1] * (number + 1), "Jet_pt": [*jets, "x"]}
    error = problem_with(EVENT, event)
    assert (error.event, error.branch) == (1, "Jet_pt")
    assert f"value {number}: expected a number, got 'x'" in str(error)
