import asyncio
import json
import shlex
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import asdict, replace

import awkward as ak
import httpx
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from served import as_json, make_array, make_bundle, serving
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.routing import Route
from strategies import num_examples

from mlaas4hep_dask.bundle import open_bundle, write_bundle
from mlaas4hep_dask.encode import EncodeCounts, Encoding, encode
from mlaas4hep_dask.errors import BusyError, EventError
from mlaas4hep_dask.events import Events
from mlaas4hep_dask.export import to_torchscript
from mlaas4hep_dask.score.batching import Batcher
from mlaas4hep_dask.score.opening import open_scorer
from mlaas4hep_dask.score.parts import SLICE, SLICE_VALUES, Records
from mlaas4hep_dask.score.scorer import Scorer
from mlaas4hep_dask.score.scores import Scores
from mlaas4hep_dask.score.script import Script
from mlaas4hep_dask.serve import build_app
from mlaas4hep_dask.serve.body import Bodies
from mlaas4hep_dask.serve.parts import INLINE_BYTES, parts_of
from mlaas4hep_dask.specs.measure import measure

pytestmark = pytest.mark.server

MAX_BODY_BYTES = 1_000_000
JSON = {"Content-Type": "application/json"}


def test_sorted_clipped_and_transformed_events_get_the_score_of_training(tmp_path):
    array = make_array()
    events = Events.from_awkward(array)
    (key,) = (branch for branch in events.branches if branch.name == "Jet_pt")
    inputs = tuple(branch for branch in events.branches if branch.name != "Jet_pt")
    specs = measure(replace(events, branches=inputs), sample="s", transforms={"MET_pt": "log"})
    options = {
        "normalisation": [
            {"MET_pt": "log-standard"},
            {"mass": {"x": [100, 120, 130, 150], "y": [0, 1, 3, 4]}},
            {"*": "robust"},
        ],
        "width": {"Jet": {"quantile": 0.6}},
        "sort": {"Jet": "-Jet_pt"},
        "keys": [asdict(key)],
        "out_of_range": [{"MET_*": "pass"}, {"*": "clip"}],
    }
    encoding = Encoding.from_specs(specs, **options)
    torch.manual_seed(3)
    network = torch.nn.Linear(encoding.layout.num_columns, 1).eval()
    facts = {"name": "sorted", "metrics": {}, "data": {}, "card": "", "specs": specs}
    exported = to_torchscript(network, encoding)
    write_bundle(tmp_path / "sorted", model=exported, encode=options, **facts)
    model = open_scorer(tmp_path / "sorted")
    assert model.encoding == encoding
    other = make_array(300, seed=2)
    other = ak.with_field(other, other.MET_pt - np.float32(5), "MET_pt")  # some without logarithm
    encoded = encode(Events.from_awkward(other), encoding)
    assert encoded.counts.truncated
    assert encoded.counts.not_finite["MET_pt"]
    assert encoded.counts.out_of_range
    with torch.no_grad():
        expected = torch.sigmoid(network(torch.from_numpy(encoded.dense()))).numpy()[:, 0]
    together, *apart = (
        model.score([Records(as_json(other))]),
        *map(model.score, ([Records([event])] for event in as_json(other)[:20])),
    )
    np.testing.assert_allclose(together[0].values, expected, rtol=0, atol=1e-6)
    assert together[0].counts == encoded.counts
    assert [part[0].values[0] for part in apart] == pytest.approx(expected[:20], abs=1e-6)
    halves = model.score([Records(as_json(other[:100])), Records(as_json(other[100:]))])
    for half, part in zip(halves, (other[:100], other[100:]), strict=True):
        assert half.counts == encode(Events.from_awkward(part), encoding).counts
    # Which event comes in which order does not matter, but the one to sort by has to be there.
    shuffled = [
        {k: v[::-1] if isinstance(v, list) else v for k, v in e.items()} for e in as_json(other)
    ]
    distinct = np.array([len(set(e["Jet_pt"])) == len(e["Jet_pt"]) for e in as_json(other)])
    again = model.score([Records(shuffled)])[0].values
    np.testing.assert_array_equal(again[distinct], together[0].values[distinct])
    (refused,) = model.score([Records([{k: v for k, v in shuffled[0].items() if k != "Jet_pt"}])])
    assert isinstance(refused, EventError)
    assert "Jet_pt" in str(refused)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "bundle"
    return path, make_bundle(path)


@pytest.fixture(scope="module")
def bundle(trained):
    return trained[0]


@pytest.fixture(scope="module")
def server(bundle):
    with serving(bundle, "--max-body-bytes", MAX_BODY_BYTES) as served:
        yield served


@pytest.fixture(scope="module")
def client():
    with httpx.Client(timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def events():
    """New events with the scores that the network itself gives them, in three forms."""
    return make_array(700, seed=2)


@pytest.fixture(scope="module")
def expected(trained, events):
    path, network = trained
    encoded = encode(Events.from_awkward(events), open_bundle(path).encoding)
    with torch.no_grad():
        scores = torch.sigmoid(network(torch.from_numpy(encoded.dense())))[:, 0].numpy()
    return scores, encoded.counts


def counts_of(answer):
    return EncodeCounts(**answer.json()["counts"])


# --- Scores -------------------------------------------------------------------------------------


def test_a_served_score_is_the_trained_score(server, client, events, expected):
    posted = as_json(events)
    for number in range(20):
        answer = client.post(server.predict, json={"events": [posted[number]]})
        assert answer.status_code == 200
        assert answer.json()["model"] == "higgs"
        np.testing.assert_allclose(answer.json()["scores"], expected[0][number], atol=1e-6)


def test_many_events_are_scored_in_order_and_counted(server, client, events, expected):
    scores, counts = expected
    answer = client.post(server.predict, json={"events": as_json(events)})
    assert len(events) > 2 * SLICE
    np.testing.assert_allclose(answer.json()["scores"], scores, atol=1e-6)
    assert counts.not_finite
    assert counts.truncated
    assert counts_of(answer) == counts


def test_concurrent_requests_get_their_own_scores_and_counts(server, events, expected, bundle):
    posted = as_json(events)
    encoding = open_bundle(bundle).encoding
    starts = [12 * number for number in range(50)]
    sizes = [1 + number % 3 if number else 600 for number in range(50)]

    async def post_all():
        async with httpx.AsyncClient(timeout=60) as client:
            posts = [
                client.post(server.predict, json={"events": posted[start : start + size]})
                for start, size in zip(starts, sizes, strict=True)
            ]
            return await asyncio.gather(*posts)

    for start, size, answer in zip(starts, sizes, asyncio.run(post_all()), strict=True):
        part = slice(start, start + size)
        np.testing.assert_allclose(answer.json()["scores"], expected[0][part], atol=1e-6)
        assert counts_of(answer) == encode(Events.from_awkward(events[part]), encoding).counts


def test_a_bad_request_leaves_concurrent_ones_alone(server, events, expected):
    posted = as_json(events)
    bad = posted[0] | {"MET_pt": "x"}

    async def post_all():
        async with httpx.AsyncClient(timeout=60) as client:
            bodies = [[bad] if number % 2 else [posted[number]] for number in range(40)]
            return await asyncio.gather(
                *(client.post(server.predict, json={"events": body}) for body in bodies)
            )

    for number, answer in enumerate(asyncio.run(post_all())):
        if number % 2:
            assert answer.status_code == 422
        else:
            assert answer.json()["scores"] == pytest.approx([expected[0][number]], abs=1e-6)


def test_no_events_give_no_scores(server, client):
    answer = client.post(server.predict, json={"events": []})
    assert answer.status_code == 200
    assert answer.json() == {
        "model": "higgs",
        "scores": [],
        "counts": {"not_finite": {}, "out_of_range": {}, "truncated": {}},
        "ignored": [],
    }


def test_values_outside_the_specs_are_counted(server, client, events):
    event = as_json(events)[0] | {"MET_pt": 1e6, "PV_npvs": None}
    answer = client.post(server.predict, json={"events": [event]})
    assert counts_of(answer).out_of_range["MET_pt"] == 1
    assert counts_of(answer).not_finite["PV_npvs"] == 1


def test_extra_branches_are_ignored_and_named(server, client, events, expected):
    posted = [event | {"luminosityBlock": 3} for event in as_json(events)[:3]]
    answer = client.post(server.predict, json={"events": [*posted, posted[0] | {"x": "y"}]})
    assert answer.json()["ignored"] == ["luminosityBlock", "x"]
    np.testing.assert_allclose(answer.json()["scores"][:3], expected[0][:3], atol=1e-6)


# --- Errors -------------------------------------------------------------------------------------


def error_of(answer, status):
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert set(answer.json()) == {"error", "event", "branch"}
    assert len(answer.json()["error"]) < 400
    return answer.json()


@pytest.mark.parametrize(
    ("change", "branch", "message"),
    [
        ({"MET_pt": "31"}, "MET_pt", "expected a number, got '31'"),
        ({"MET_pt": 1e300}, "MET_pt", "beyond the range of float32"),
        ({"PV_npvs": 0.5}, "PV_npvs", "not a whole number"),
        ({"Jet_pt": 3}, "Jet_pt", "expected a list"),
        ({"Jet_eta": [1.0], "Jet_pt": []}, "Jet_pt", "0 values but 'Jet_eta' has 1"),
    ],
)
def test_an_event_error_names_event_and_branch(server, client, events, change, branch, message):
    posted = as_json(events)[:600]
    posted[555] = posted[555] | change
    error = error_of(client.post(server.predict, json={"events": posted}), 422)
    assert (error["event"], error["branch"]) == (555, branch)
    assert message in error["error"]


def test_a_missing_branch_is_named_with_the_near_one(server, client, events):
    event = as_json(events)[0]
    event["MET_Pt"] = event.pop("MET_pt")
    error = error_of(client.post(server.predict, json={"events": [event]}), 422)
    assert error == {
        "error": "event 0, branch 'MET_pt': it is missing; did you mean 'MET_Pt'?",
        "event": 0,
        "branch": "MET_pt",
    }


def test_a_value_too_large_to_normalise_is_refused(server, client, events):
    posted = as_json(events)[:4]
    posted[2] = posted[2] | {"mass": 1e300}
    error = error_of(client.post(server.predict, json={"events": posted}), 422)
    assert (error["event"], error["branch"]) == (2, "mass")
    assert "too large to normalise" in error["error"]


def test_a_body_that_is_not_json_is_refused(server, client):
    def post(body):
        return error_of(client.post(server.predict, content=body, headers=JSON), 400)["error"]

    assert "not JSON" in post(b"{'events': []}")
    assert "write null" in post(b'{"events": [{"MET_pt": NaN}]}')
    assert "UTF-8" in post(b'{"events": ["\xff"]}')
    assert '{"events": [...]}' in post(b"[1, 2]")
    assert "empty document" in post(b"")


def test_the_content_type_is_json_or_absent(server, client):
    body = b'{"events": []}'
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    refused = error_of(client.post(server.predict, content=body, headers=form), 415)
    assert "Content-Type: application/json" in refused["error"]
    zipped = JSON | {"Content-Encoding": "gzip"}
    assert (
        "compressed"
        in error_of(client.post(server.predict, content=body, headers=zipped), 415)["error"]
    )
    assert client.post(server.predict, content=body).status_code == 200
    spelt = {"Content-Type": "Application/JSON; charset=utf-8"}
    assert client.post(server.predict, content=body, headers=spelt).status_code == 200


def test_a_large_body_is_refused_with_and_without_its_length(server, client):
    body = b'{"events": [' + b" " * MAX_BODY_BYTES + b"]}"
    message = f"larger than {MAX_BODY_BYTES} bytes"
    assert (
        message in error_of(client.post(server.predict, content=body, headers=JSON), 413)["error"]
    )

    def pieces():
        for start in range(0, len(body), 65536):
            yield body[start : start + 65536]

    chunked = client.post(server.predict, content=pieces(), headers=JSON)
    assert message in error_of(chunked, 413)["error"]
    assert client.post(server.predict, content=pieces(), headers=JSON).status_code == 413
    just = body.replace(b" ", b"", len(b'{"events": []}'))
    assert len(just) == MAX_BODY_BYTES
    assert client.post(server.predict, content=just, headers=JSON).status_code == 200


def test_too_many_events_are_refused(server, client):
    body = b'{"events": [' + b"0," * 65536 + b"0]}"
    error = error_of(client.post(server.predict, content=body, headers=JSON), 413)
    assert "65537 events in one request" in error["error"]


def test_an_unknown_model_or_path_is_told_the_near_one(server, client):
    url = server.url
    unknown = client.post(f"{url}/v1/models/higs/predict", json={"events": []})
    assert error_of(unknown, 404)["error"] == "no model named 'higs'; did you mean 'higgs'?"
    assert "no model" in error_of(client.get(f"{url}/v1/models/{'%ff' * 500}"), 404)["error"]
    assert "GET /v1/models" in error_of(client.get(f"{url}/predict"), 404)["error"]
    assert error_of(client.get(server.predict), 405)["error"] == "Method Not Allowed"
    assert client.get(server.predict).headers["allow"] == "POST"
    error_of(client.delete(f"{url}/v1/models/higgs"), 405)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["events", "MET_pt", 10**400, 1e39]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["events", "MET_pt", "Jet_pt", "Jet_eta", "mass", "HLT_Jet", "PV_npvs"])
            | st.text(max_size=5),
            inner,
            max_size=7,
        )
    ),
    max_leaves=20,
)
bodies = (
    st.binary(max_size=100)
    | json_values.map(lambda value: json.dumps(value).encode())
    | st.lists(json_values, max_size=4).map(lambda v: json.dumps({"events": v}).encode())
)


@num_examples(300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=bodies)
def test_no_body_makes_the_server_fail(server, client, body):
    answer = client.post(server.predict, content=body, headers=JSON)
    assert answer.status_code in (200, 400, 413, 422), answer.text
    if answer.status_code != 200:
        error_of(answer, answer.status_code)


@num_examples(150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.dictionaries(st.sampled_from(ak.fields(make_array(1))), json_values))
def test_no_event_makes_the_server_fail(server, client, events, changes):
    body = json.dumps({"events": [as_json(events[:1])[0] | changes]}).encode()
    answer = client.post(server.predict, content=body, headers=JSON)
    assert answer.status_code in (200, 400, 422), answer.text


def test_a_client_that_leaves_breaks_nothing(server, client, events, expected):
    body = json.dumps({"events": as_json(events)}).encode()
    head = (
        "POST /v1/models/higgs/predict HTTP/1.1\r\nHost: localhost\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    for sent in (len(body), len(body) // 2, 0):
        with socket.create_connection(server.address) as connection:
            connection.sendall(head.encode() + body[:sent])
    answer = client.post(server.predict, json={"events": as_json(events[:1])})
    assert answer.json()["scores"] == pytest.approx([expected[0][0]], abs=1e-6)


# --- What is served -----------------------------------------------------------------------------


def test_health_and_models_tell_what_is_served(server, client):
    assert client.get(f"{server.url}/health").json() == {"status": "ok", "models": ["higgs"]}
    model = client.get(f"{server.url}/v1/models/higgs").json()
    assert client.get(f"{server.url}/v1/models").json() == {"models": [model]}
    assert model["name"] == "higgs"
    assert model["metrics"] == {"auc": 0.8}
    assert model["output"]["name"] == "score"
    assert model["created"]
    branches = {branch["name"]: branch for branch in model["input"]["branches"]}
    assert branches["Jet_pt"] == {
        "name": "Jet_pt",
        "kind": "jagged",
        "dtype": "float32",
        "collection": "Jet",
        "unit": None,
    }
    assert branches["HLT_Jet"]["dtype"] == "bool"


def test_the_printed_curl_command_gets_a_score(server, client):
    assert server.first_line == f"serving model 'higgs' at {server.predict}\n"
    words = shlex.split(server.curl)
    assert words[:3] == ["curl", "-H", "Content-Type: application/json"]
    assert words[3] == "-d"
    answer = client.post(words[5], content=words[4], headers=JSON)
    assert answer.status_code == 200
    assert len(answer.json()["scores"]) == 1
    assert counts_of(answer) == EncodeCounts()


def test_health_says_starting_before_the_models_are_loaded(bundle):
    async def get_all():
        transport = httpx.ASGITransport(build_app(bundle))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.get("/health"), await client.get("/v1/models")

    health, models = asyncio.run(get_all())
    assert (health.status_code, health.json()["status"]) == (503, "starting")
    assert error_of(models, 503)["error"] == "the server is starting"


def test_a_fault_of_the_server_tells_nothing_of_it(bundle):
    async def fail(request):
        raise RuntimeError("secret")

    app = build_app(bundle)
    app.router.routes.append(Route("/fail", fail))

    async def get():
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.get("/fail")

    assert "secret" not in error_of(asyncio.run(get()), 500)["error"]


def test_an_archive_and_a_second_model_are_served_side_by_side(bundle, tmp_path, client, events):
    network = make_bundle(tmp_path / "other", name="second model", seed=5)
    archive = tmp_path / "other.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(tmp_path / "other", arcname="other")
    encoded = encode(Events.from_awkward(events[:5]), open_bundle(bundle).encoding)
    with torch.no_grad():
        scores = torch.sigmoid(network(torch.from_numpy(encoded.dense())))[:, 0].numpy()
    with serving(bundle, archive) as served:
        models = client.get(f"{served.url}/health").json()["models"]
        assert models == ["higgs", "second model"]
        url = f"{served.url}/v1/models/second%20model/predict"
        answer = client.post(url, json={"events": as_json(events[:5])})
        np.testing.assert_allclose(answer.json()["scores"], scores, atol=1e-6)


def test_a_request_that_was_accepted_is_answered_at_shutdown(bundle, events):
    body = json.dumps({"events": as_json(events)}).encode()
    with serving(bundle) as served, socket.create_connection(served.address) as connection:
        head = (
            "POST /v1/models/higgs/predict HTTP/1.1\r\nHost: localhost\r\n"
            f"Expect: 100-continue\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        connection.sendall(head.encode())
        assert connection.recv(1000).startswith(b"HTTP/1.1 100")  # now it is accepted
        served.process.send_signal(signal.SIGTERM)
        while True:
            with socket.socket() as late:
                if late.connect_ex(served.address):
                    break  # nothing new is taken: the shutdown has begun
            time.sleep(0.01)  # between two looks
        connection.sendall(body)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    assert len(json.loads(body)["scores"]) == len(events)


# --- Starting -----------------------------------------------------------------------------------


def refused(*arguments, code="from mlaas4hep_dask.serve.cli import main"):
    script = f"import sys; {code}; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    first, *lines = done.stderr.splitlines()
    assert first.startswith("serve: ")
    (line,) = (line for line in lines if " WARNING " not in line)
    return line


def test_a_bundle_that_does_not_exist_is_refused(tmp_path):
    assert "no such bundle" in refused(tmp_path / "none", "--port", 0)


def test_an_altered_bundle_is_refused(bundle, tmp_path):
    make_bundle(tmp_path / "bundle")
    with (tmp_path / "bundle" / "model.pt").open("ab") as file:
        file.write(b"x")
    assert "model.pt was altered" in refused(tmp_path / "bundle", "--port", 0)


def test_two_models_of_one_name_are_refused(bundle):
    assert "a model named 'higgs' is served already" in refused(bundle, bundle, "--port", 0)


def test_a_port_in_use_is_refused(bundle, server):
    port = server.url.rsplit(":", 1)[1]
    assert f"cannot listen on 127.0.0.1 port {port}: Address" in refused(bundle, "--port", port)


def test_a_missing_extra_is_named_with_the_command_that_installs_it(bundle):
    code = "sys.modules['uvicorn'] = None; from mlaas4hep_dask.serve.cli import main"
    line = refused(bundle, "--port", 0, code=code)
    assert "'uvicorn' is not installed" in line
    assert "pip install 'mlaas4hep_dask[serve]'" in line


def test_the_server_loads_neither_dask_nor_readers_nor_training(bundle, events, tmp_path):
    posted = tmp_path / "events.json"
    posted.write_text(json.dumps({"events": as_json(events[:3])}), encoding="utf-8")
    script = """
import asyncio, sys
from pathlib import Path
from mlaas4hep_dask.serve import build_app
from mlaas4hep_dask.score.parts import Records
from mlaas4hep_dask.serve.payload import records_in
app = build_app(sys.argv[1])
print(*sys.modules)
async def score():
    async with app.router.lifespan_context(app):
        records = records_in(Path(sys.argv[2]).read_bytes())
        print(app.state.models["higgs"].score([Records(records)])[0].values.size)
asyncio.run(score())
print(*sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, bundle, posted], capture_output=True, text=True, check=True
    )
    built, size, scored = done.stdout.splitlines()
    assert size == "3"
    rooms = ("train", "dataset", "reader", "run", "cluster")
    unwanted = {f"mlaas4hep_dask.{room}" for room in rooms}
    unwanted |= {"dask", "distributed", "dask_awkward", "uproot", "coffea"}
    assert not set(scored.split()) & unwanted
    # The first kernel makes numba load the extensions of installed packages, awkward's too.
    assert "awkward" not in built.split()


# --- Parts --------------------------------------------------------------------------------------


def test_parts_scored_together_are_scored_as_alone(bundle, events):
    model = open_scorer(bundle)
    posted = as_json(events)
    posted[3] = posted[3] | {"MET_pt": 1e9, "extra": 1}
    posted[4] = posted[4] | {"PV_npvs": None}
    parts = [
        Records(posted[:1]),
        Records(posted[1:20]),
        Records(posted[20:50], first=7),
        Records(posted[50:51]),
    ]
    together = model.score(parts)
    for part, scored in zip(parts, together, strict=True):
        (alone,) = model.score([part])
        np.testing.assert_allclose(scored.values, alone.values, atol=1e-6)
        assert scored.counts == alone.counts
        assert scored.ignored == alone.ignored
    assert together[1].counts.truncated
    assert together[1].counts.out_of_range["MET_pt"] == 1
    assert together[1].ignored == {"extra"}


def test_one_part_that_does_not_fit_fails_alone_with_its_own_event_number(bundle, events):
    posted = as_json(events)
    bad = [*posted[:5], posted[5] | {"mass": 1e300}]
    good, failed, typo = open_scorer(bundle).score(
        [Records(posted[:9]), Records(bad, first=256), Records([posted[0] | {"MET_pt": "1"}])]
    )
    assert len(good.values) == 9
    assert (type(failed), failed.event, failed.branch) == (EventError, 261, "mass")
    assert (typo.event, typo.branch) == (0, "MET_pt")


class CountingScript(Script):
    """Notes how many events it scores at a time."""

    def __init__(self, source):
        super().__init__(source)
        self.batches = []

    def scores(self, encoded):
        self.batches.append(len(encoded))
        return super().scores(encoded)


@pytest.mark.parametrize(
    "change",
    [
        {"MET_pt": "x"},
        {"MET_pt": 1e300},
        {"Jet_eta": [1.0], "Jet_pt": []},
        {"mass": 1e300},
        {"HLT_Jet": 2},
    ],
    ids=str,
)
@pytest.mark.parametrize("places", [[0], [99], [17, 18, 60], list(range(0, 100, 2))], ids=len)
def test_the_rest_of_a_batch_is_scored_once_without_what_does_not_fit(
    bundle, events, change, places
):
    network = CountingScript(bundle / "model.pt")
    model = Scorer(open_bundle(bundle), network)
    posted = as_json(events)[:100]
    alone = [model.score([Records([event])])[0] for event in posted]
    network.batches.clear()
    parts = [
        Records([event | change] if n in places else [event]) for n, event in enumerate(posted)
    ]
    outcomes = model.score(parts)
    assert network.batches == [100 - len(places)]
    for number, (outcome, own) in enumerate(zip(outcomes, alone, strict=True)):
        if number in places:
            assert (type(outcome), outcome.event) == (EventError, 0)
        else:
            np.testing.assert_allclose(outcome.values, own.values, atol=1e-6)
            assert outcome.counts == own.counts


def test_a_batch_of_nothing_that_fits_gives_every_part_its_own_reason(bundle, events):
    posted = as_json(events)[:7]
    names = ["HLT_Jet", "MET_pt", "PV_npvs", "mass", "Jet_eta", "Jet_pt", "MET_pt"]
    parts = [
        Records([event, event | {name: "x"}]) for event, name in zip(posted, names, strict=True)
    ]
    outcomes = open_scorer(bundle).score(parts)
    assert [(outcome.event, outcome.branch) for outcome in outcomes] == [(1, n) for n in names]


def test_a_score_that_is_not_finite_leaves_the_batch_its_scores(tmp_path, events):
    make_bundle(tmp_path / "bundle", overflows=True)
    network = CountingScript(tmp_path / "bundle" / "model.pt")
    model = Scorer(open_bundle(tmp_path / "bundle"), network)
    posted = as_json(events)[:4]
    bad = [posted[1], posted[2] | {"MET_pt": 3.4e38}]
    first, failed, last = model.score(
        [Records(posted[:1]), Records(bad, first=10), Records(posted[3:])]
    )
    assert network.batches == [4]
    assert (type(failed), failed.event) == (EventError, 11)
    assert first.values == model.score([Records(posted[:1])])[0].values
    assert last.values == model.score([Records(posted[3:])])[0].values


def test_an_event_without_a_finite_score_is_refused(tmp_path, events):
    make_bundle(tmp_path / "bundle", overflows=True)
    posted = as_json(events)[:3]
    posted[1] = posted[1] | {"MET_pt": 3.4e38}
    (failed,) = open_scorer(tmp_path / "bundle").score([Records(posted)])
    assert (type(failed), failed.event, failed.branch) == (EventError, 1, None)
    assert "no finite score" in str(failed)


# --- Bodies -------------------------------------------------------------------------------------


def request_of(*chunks):
    """A request whose body arrives in these chunks, and then does not go on."""
    waiting = list(chunks)

    async def receive():
        if not waiting:
            await asyncio.Event().wait()
        body = waiting.pop(0)
        return {"type": "http.request", "body": body, "more_body": body != b"end"}

    return Request({"type": "http", "method": "POST", "headers": []}, receive)


def test_a_body_that_takes_too_long_is_refused():
    async def read():
        async with Bodies(max_seconds=0.05).read(request_of(b"{")):
            pass

    with pytest.raises(HTTPException, match=r"longer than 0\.05 s") as caught:
        asyncio.run(read())
    assert caught.value.status_code == 408


def test_a_body_that_takes_too_long_while_the_server_ends_is_told_so():
    async def read():
        bodies = Bodies(max_seconds=0.05)
        bodies.drain()
        async with bodies.read(request_of(b"{")):
            pass

    with pytest.raises(BusyError, match="shutting down"):
        asyncio.run(read())


def test_bodies_held_at_once_are_bounded_and_let_go():
    bodies = Bodies(max_bytes=10)

    async def read(held):
        async with AsyncExitStack() as stack:
            for _ in range(held):
                body = await stack.enter_async_context(bodies.read(request_of(b"1234567", b"end")))
                assert body == b"1234567end"

    for _ in range(2):
        asyncio.run(read(16))
        with pytest.raises(BusyError, match="holds too many"):
            asyncio.run(read(17))


def test_bodies_that_arrive_slowly_make_room_for_others():
    held = 12 * 100_000  # three quarters of what is held in all
    bodies = Bodies(max_bytes=100_000, slow_seconds=0.1)

    async def read(*chunks):
        async with bodies.read(request_of(*chunks)) as received:
            return len(received)

    async def scenario():
        slow = [asyncio.ensure_future(read(bytes(80_000))) for _ in range(held // 80_000)]
        await asyncio.sleep(0.2)  # longer than a body may be slow while others need its room
        assert await read(bytes(70_000), b"end") == 70_003
        done, waiting = await asyncio.wait(slow, timeout=0.1)
        (evicted,) = done
        assert type(evicted.exception()) is BusyError
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert await asyncio.gather(*(read(bytes(80_000), b"end") for _ in range(14)))

    asyncio.run(scenario())


def test_a_body_that_keeps_its_pace_may_take_longer_than_the_first_seconds():
    class Steady:
        left = 5

        async def receive(self):
            await asyncio.sleep(0.05)  # the pace of this client
            self.left -= 1
            return {"type": "http.request", "body": bytes(10_000), "more_body": self.left > 0}

    async def read(request):
        async with Bodies(first_seconds=0.1, min_rate=1000).read(request) as received:
            return len(received)

    scope = {"type": "http", "method": "POST", "headers": []}
    assert asyncio.run(read(Request(scope, Steady().receive))) == 50_000


# --- Batching -----------------------------------------------------------------------------------


class Scoring:
    """Scores an event with its own value; the first call waits until it is let go."""

    def __init__(self):
        self.go = threading.Event()
        self.started = threading.Event()
        self.batches = []

    def __call__(self, parts):
        self.batches.append([list(part.records) for part in parts])
        self.started.set()
        self.go.wait(30)
        return [
            EventError("bad", event=part.first, branch=None)
            if "bad" in part.records
            else Scores(np.array(part.records, dtype=np.float32))
            for part in parts
        ]


def parts_of_list(records):
    return [Records(records[i : i + SLICE], i) for i in range(0, len(records), SLICE)]


def batched(scenario, **options):
    scoring = Scoring()

    async def run():
        with ThreadPoolExecutor(1) as executor:
            batcher = Batcher(scoring, executor, **options)
            try:
                return await scenario(batcher, scoring)
            finally:
                scoring.go.set()
                await asyncio.wait_for(batcher.drain(), 30)

    return asyncio.run(run()), scoring.batches


async def submit_while_busy(batcher, scoring, *requests):
    tasks = [asyncio.ensure_future(batcher.submit(parts_of_list([0])))]
    await asyncio.to_thread(scoring.started.wait, 30)
    tasks += [asyncio.ensure_future(batcher.submit(parts_of_list(records))) for records in requests]
    await asyncio.sleep(0)
    return tasks


def test_requests_that_arrive_while_busy_become_one_batch():
    async def scenario(batcher, scoring):
        tasks = await submit_while_busy(batcher, scoring, [1], [2, 3], [4])
        scoring.go.set()
        return [scored.values.tolist() for scored in await asyncio.gather(*tasks)]

    scores, batches = batched(scenario)
    assert scores == [[0], [1], [2, 3], [4]]
    assert batches == [[[0]], [[1], [2, 3], [4]]]


def test_a_large_request_is_sliced_and_small_ones_go_along():
    large = list(range(2 * SLICE + 10))

    async def scenario(batcher, scoring):
        tasks = await submit_while_busy(batcher, scoring, large, [-1], [-2])
        scoring.go.set()
        return [scored.values.tolist() for scored in await asyncio.gather(*tasks)]

    scores, batches = batched(scenario)
    assert scores == [[0], large, [-1], [-2]]
    assert batches[1] == [[-1], [-2], large[:SLICE]]
    assert batches[2:] == [[large[SLICE : 2 * SLICE]], [large[2 * SLICE :]]]


def test_an_error_in_a_slice_ends_its_request_alone():
    large = [*range(SLICE), "bad", *range(3 * SLICE)]

    async def scenario(batcher, scoring):
        tasks = await submit_while_busy(batcher, scoring, large, [1])
        scoring.go.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    (_, failed, scored), batches = batched(scenario)
    assert isinstance(failed, EventError)
    assert failed.event == SLICE
    assert scored.values.tolist() == [1]
    assert len(batches) == 3


def test_a_cancelled_request_is_left_out():
    async def scenario(batcher, scoring):
        tasks = await submit_while_busy(batcher, scoring, [1], [2])
        tasks[0].cancel()
        tasks[1].cancel()
        await asyncio.sleep(0)
        scoring.go.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    (first, second, third), batches = batched(scenario)
    assert isinstance(first, asyncio.CancelledError)
    assert isinstance(second, asyncio.CancelledError)
    assert third.values.tolist() == [2]
    assert batches == [[[0]], [[2]]]


def test_too_many_waiting_events_are_refused_until_there_is_room():
    async def scenario(batcher, scoring):
        tasks = await submit_while_busy(batcher, scoring, [1] * 8)
        with pytest.raises(BusyError, match="9 events are waiting"):
            await batcher.submit(parts_of_list([2, 2]))
        scoring.go.set()
        await asyncio.gather(*tasks)
        assert len((await batcher.submit(parts_of_list([3] * 100))).values) == 100

    batched(scenario, max_waiting=10)


def test_large_requests_that_wait_do_not_keep_small_ones_out():
    async def scenario(batcher, scoring):
        tasks = await submit_while_busy(batcher, scoring, [1] * (2 * SLICE), [2])
        with pytest.raises(BusyError, match="events are waiting"):
            await batcher.submit(parts_of_list([3] * (2 * SLICE)))
        scoring.go.set()
        return [scored.values.size for scored in await asyncio.gather(*tasks)]

    assert batched(scenario, max_waiting=3 * SLICE)[0] == [1, 2 * SLICE, 1]


def test_giving_up_refuses_all_that_wait_and_those_that_are_being_scored():
    async def scenario(batcher, scoring):
        tasks = await submit_while_busy(batcher, scoring, [1], [2] * (2 * SLICE))
        batcher.give_up()
        return await asyncio.gather(*tasks, return_exceptions=True)

    outcomes, _ = batched(scenario, stopping="it ends")
    assert [str(outcome) for outcome in outcomes] == ["it ends"] * 3
    assert {type(outcome) for outcome in outcomes} == {BusyError}


def test_few_requests_of_many_values_are_scored_in_turns():
    async def scenario(batcher, scoring):
        tasks = [asyncio.ensure_future(batcher.submit([Records([0])]))]
        await asyncio.to_thread(scoring.started.wait, 30)
        for number in (1, 2, 3):
            part = Records([number], num_values=SLICE_VALUES // 2)
            tasks.append(asyncio.ensure_future(batcher.submit([part])))
        await asyncio.sleep(0)
        scoring.go.set()
        await asyncio.gather(*tasks)

    assert batched(scenario)[1] == [[[0]], [[1], [2]], [[3]]]


def test_a_fault_in_scoring_reaches_its_request_and_later_ones_are_scored():
    async def scenario(batcher, scoring):
        scoring.go.set()
        with pytest.raises(ValueError, match="could not convert"):
            await batcher.submit(parts_of_list(["not a number"]))
        return (await batcher.submit(parts_of_list([1]))).values.tolist()

    assert batched(scenario)[0] == [1]


def test_draining_answers_what_waits_and_takes_no_more():
    async def scenario(batcher, scoring):
        tasks = await submit_while_busy(batcher, scoring, [1])
        draining = asyncio.ensure_future(batcher.drain())
        await asyncio.sleep(0)
        with pytest.raises(BusyError, match="no more events are scored"):
            await batcher.submit(parts_of_list([2]))
        scoring.go.set()
        await draining
        return [task.result().values.tolist() for task in tasks]

    assert batched(scenario)[0] == [[0], [1]]


def test_a_large_body_is_cut_off_the_loop_and_a_small_one_at_once(bundle, events):
    here = []

    def profile(frame, event, _):
        if event == "call" and frame.f_code is parts_of.__code__:
            here.append(threading.get_ident())

    async def ask():
        app = build_app(bundle)
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as asking,
        ):
            sys.setprofile(profile)  # of the loop's thread alone
            try:
                for body in (as_json(events[:1]), as_json(events)):
                    text = json.dumps({"events": body})
                    path = "/v1/models/higgs/predict"
                    answer = await asking.post(path, content=text, headers=JSON)
                    assert answer.status_code == 200, answer.text
                    assert len(answer.json()["scores"]) == len(body)
                    times.append((len(text) > INLINE_BYTES, len(here)))
            finally:
                sys.setprofile(None)

    times = []
    asyncio.run(ask())
    assert times == [(False, 1), (True, 1)]
