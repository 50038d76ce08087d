"""Clients that do not behave, each on a socket of its own, and what others notice of them."""

import contextlib
import json
import re
import select
import signal
import socket
import threading

import httpx
import numpy as np
import psutil
import pytest
import torch
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from served import as_json, make_array, make_bundle, serving
from strategies import num_examples

from mlaas4hep_dask.bundle import open_bundle
from mlaas4hep_dask.encode import encode
from mlaas4hep_dask.events import Events
from mlaas4hep_dask.serve.limits import Limits

pytestmark = pytest.mark.server

HOST = b"Host: localhost\r\n"
GET = b"GET /health HTTP/1.1\r\n" + HOST + b"\r\n"
POST = b"POST /v1/models/higgs/predict HTTP/1.1\r\n" + HOST
MEGABYTE = 1 << 20


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "bundle"
    return path, make_bundle(path)


@pytest.fixture(scope="module")
def server(trained):
    with serving(trained[0]) as served:
        yield served


@pytest.fixture(scope="module")
def events():
    return make_array(400, seed=2)


def post(objects):
    body = json.dumps({"events": objects}).encode()
    return POST + b"Content-Length: %d\r\n\r\n" % len(body) + body


@contextlib.contextmanager
def connected(server, *, receive_buffer=None):
    with socket.socket() as connection:
        connection.settimeout(60)
        if receive_buffer is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        connection.connect(server.address)
        yield connection


class Answer:
    def __init__(self, status, headers, content):
        self.status = status
        self.headers = headers
        self.content = content

    @property
    def error(self):
        assert set(self.content) == {"error", "event", "branch"}
        return self.content["error"]


def answers_in(received):
    """The answers in bytes of a connection; nothing may follow them."""
    found = []
    while received:
        head, _, rest = received.partition(b"\r\n\r\n")
        status, *lines = head.decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        assert headers["content-type"] == "application/json"
        length = int(headers["content-length"])
        assert len(rest) >= length
        found.append(Answer(int(status.split()[1]), headers, json.loads(rest[:length])))
        received = rest[length:]
    return found


def receive(connection):
    """The next answer on a connection."""
    received = b""
    while True:
        head, found, rest = received.partition(b"\r\n\r\n")
        if found and len(rest) == int(re.search(rb"content-length: (\d+)", head)[1]):
            (answer,) = answers_in(received)
            return answer
        piece = connection.recv(MEGABYTE)
        assert piece, "the connection was closed"
        received += piece


def read_to_end(connection):
    return b"".join(iter(lambda: connection.recv(MEGABYTE), b""))


def answers_to(server, request):
    """What the server answers to bytes, until it closes the connection."""
    with connected(server) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(request)
        return answers_in(read_to_end(connection))


def answer_to(server, request):
    (answer,) = answers_to(server, request)
    return answer


def memory_of(server):
    return psutil.Process(server.process.pid).memory_info().rss


# --- What never ends ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("begin", "piece", "status"),
    [
        (b"GET /health", b"a" * 65536, 414),
        (b"GET /health HTTP/1.1\r\nX: ", b"a" * 65536, 431),
        (b"GET /health HTTP/1.1\r\n", b"a" * 65536, 431),
        (b"GET /health HTTP/1.1\r\n", b"X: y\r\n" * 10000, 431),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n1;", b"a" * 65536, 400),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX: ", b"a" * 65536, 400),
        (GET * 3 + b"GET /health HTTP/1.1\r\nX: ", b"a" * 65536, 431),
    ],
    ids=["url", "header", "header name", "headers", "chunk extension", "trailer", "after others"],
)
def test_a_head_without_end_is_refused_and_takes_no_memory(server, begin, piece, status):
    before = memory_of(server)
    with connected(server) as connection:
        connection.sendall(begin)
        with contextlib.suppress(ConnectionError):  # when the server does not listen any more
            for _ in range(400):
                connection.sendall(piece)
        *earlier, last = answers_in(read_to_end(connection))
    assert [answer.status for answer in earlier] == [200] * begin.count(GET)
    assert last.status == status
    assert f"{Limits().head_bytes} bytes" in last.error or "128 headers" in last.error
    assert last.headers["connection"] == "close"
    assert memory_of(server) - before < 16 * MEGABYTE


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /%b HTTP/1.1\r\n" % (b"a" * 70_000) + HOST, 414),
        (b"GET /health HTTP/1.1\r\nX: %b\r\n" % (b"a" * 70_000) + HOST, 431),
        (b"GET /health HTTP/1.1\r\n" + HOST + b"X: y\r\n" * 200, 431),
    ],
    ids=["url", "header", "number of headers"],
)
def test_a_head_that_is_too_large_is_refused_though_it_ends(server, head, status):
    assert answer_to(server, head + b"\r\n").status == status


def test_a_head_of_less_than_the_limit_is_taken(server):
    long = b"X: %b\r\n" % (b"a" * 20_000) * 3
    head = b"GET /health HTTP/1.1\r\n" + HOST + long + b"Connection: close\r\n\r\n"
    assert answer_to(server, head).status == 200


def test_requests_that_are_sent_ahead_are_answered_up_to_a_number(server):
    *answered, last = answers_to(server, GET * 5000)
    assert [answer.status for answer in answered] == [200] * len(answered)
    assert 1 <= len(answered) <= Limits().pipelined + 1
    assert last.status == 429
    few = GET * 20 + GET.replace(HOST, HOST + b"Connection: close\r\n")
    assert [answer.status for answer in answers_to(server, few)] == [200] * 21


def test_requests_are_answered_in_order_when_a_later_one_is_no_http(server, events):
    sent = post(as_json(events[:1])) + GET + b"nonsense\r\n\r\n"
    scores, health, refused = answers_to(server, sent)
    assert (scores.status, len(scores.content["scores"])) == (200, 1)
    assert health.content["status"] == "ok"
    assert refused.status == 400


# --- What is not HTTP, or two things at once ----------------------------------------------------

CHUNKED = b"Transfer-Encoding: chunked\r\n"


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (POST + b"Content-Length: 2\r\n" + CHUNKED + b"\r\n{}", 400),
        (POST + CHUNKED + b"Content-Length: 2\r\n\r\n{}", 400),
        (POST + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", 400),
        (POST + b"Content-Length: 2, 2\r\n\r\n{}", 400),
        (POST + b"Content-Length: -2\r\n\r\n{}", 400),
        (POST + b"Content-Length: 99999999999999999999999\r\n\r\n{}", 400),
        (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: identity\r\n\r\n{}", 400),
        (POST + CHUNKED + b"\r\nZZ\r\n{}\r\n0\r\n\r\n", 400),
        (POST + CHUNKED + b"\r\n-2\r\n{}\r\n0\r\n\r\n", 400),
        (POST + CHUNKED + b"\r\n2\r\n{}\r\nFFFFFFFFFFFFFFFFFFF\r\n", 400),
        (POST + CHUNKED + b"\r\n2\r\n{}}\r\n0\r\n\r\n", 400),
        (POST.replace(b"Host:", b"Host :") + b"\r\n", 400),
        (POST + b"X: y\r\n  folded\r\n\r\n", 400),
        (POST + b"X: y\0z\r\n\r\n", 400),
        (POST + b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\n{}", 400),
        (b"CONNECT localhost:80 HTTP/1.1\r\n" + HOST + b"\r\n", 400),
        (b"GET http://localhost HTTP/1.1\r\n" + HOST + b"\r\n", 400),
        (b"GET /health\r\n\r\n", 400),
        (b"GET /health HTTP/2.0\r\n" + HOST + b"\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01", 400),
    ],
)
def test_a_request_that_could_be_read_in_two_ways_is_refused(server, request_, status):
    answer = answer_to(server, request_ + GET)
    assert answer.status == status
    assert answer.error
    assert answer.headers["connection"] == "close"


json_text = json.dumps({"events": [{"MET_pt": 1.5, "Jet_pt": [1, 2]}]}).encode()
VALID = (
    GET
    + POST
    + b"Content-Length: %d\r\n\r\n" % len(json_text)
    + json_text
    + POST
    + CHUNKED
    + b"\r\n%x\r\n" % len(json_text)
    + json_text
    + b"\r\n0\r\nX: y\r\n\r\n"
    + GET
)


@num_examples(300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    place=st.integers(0, len(VALID)),
    removed=st.integers(0, 40),
    inserted=st.binary(max_size=8)
    | st.sampled_from([b"\r\n", b"\r\n\r\n", b" ", b"0", b"-1", b"Host: x\r\n", VALID]),
)
def test_whatever_is_sent_every_answer_is_one_of_ours(server, place, removed, inserted):
    sent = VALID[:place] + inserted + VALID[place + removed :]
    with connected(server) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
        answers = answers_in(read_to_end(connection))
    for answer in answers:
        assert answer.status == 200 or 400 <= answer.status < 500


def test_a_client_that_ends_its_side_is_answered(server, events):
    with connected(server) as connection:
        connection.sendall(GET + post(as_json(events)))
        connection.shutdown(socket.SHUT_WR)
        health, scores = answers_in(read_to_end(connection))
    assert health.status == 200
    assert len(scores.content["scores"]) == len(events)


def test_http_1_0_is_answered_and_closed(server):
    assert answer_to(server, b"GET /health HTTP/1.0\r\n\r\n").content["status"] == "ok"


def test_a_body_that_waits_to_be_asked_for_is_asked_for_and_scored(server, events):
    head, _, body = post(as_json(events[:2])).partition(b"\r\n\r\n")
    with connected(server) as connection:
        connection.sendall(head + b"\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n")
        assert connection.recv(MEGABYTE) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body)
        (answer,) = answers_in(read_to_end(connection))
    assert len(answer.content["scores"]) == 2


def test_a_body_that_is_too_large_is_refused_and_its_connection_closed(server):
    with connected(server) as connection:
        connection.sendall(POST + b"Content-Length: 99999999\r\n\r\n{")
        (answer,) = answers_in(read_to_end(connection))
    assert answer.status == 413
    assert answer.headers["connection"] == "close"


# --- Who asks -----------------------------------------------------------------------------------


def head_with(*lines):
    return b"".join([b"GET /health HTTP/1.1\r\n", *(line + b"\r\n" for line in lines), b"\r\n"])


@pytest.mark.parametrize(
    "host", [b"localhost", b"LOCALHOST:8000", b"127.0.0.1:1", b"[::1]", b"[::1]:80", b"localhost."]
)
def test_the_server_answers_to_names_of_this_machine(server, host):
    answer = answer_to(server, head_with(b"Host: " + host, b"Connection: close"))
    assert answer.status == 200


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        ([b"Host: evil.example"], 421),
        ([b"Host: evil.example:8000"], 421),
        ([b"Host: 10.0.0.1"], 421),
        ([b"Host: localhost.evil.example"], 421),
        ([b"Host: localhost:evil"], 421),
        ([b"Host: localhost@evil.example"], 421),
        ([b"Host:"], 421),
        ([], 400),
        ([b"Host: localhost", b"Host: evil.example"], 400),
        ([b"Host: localhost", b"Origin: http://evil.example"], 403),
        ([b"Host: localhost", b"Origin: null"], 403),
        ([b"Host: localhost:8000", b"Origin: http://localhost:8001"], 403),
        ([b"Host: localhost", b"Origin: file://"], 403),
    ],
)
def test_a_page_of_another_name_gets_nothing(server, lines, status):
    answer = answer_to(server, head_with(*lines))
    assert answer.status == status
    assert "--allowed-host" in answer.error or status == 400


@pytest.mark.parametrize(
    ("target", "host", "status"),
    [
        (b"http://localhost/health", b"localhost", 200),
        (b"http://localhost:8000/health?", b"evil.example", 200),
        (b"HTTP://[::1]:80/health", b"evil.example", 200),
        (b"http://evil.example/health", b"localhost", 421),
        (b"http://localhost@evil.example/health", b"localhost", 421),
        (b"http://evil.example?/health", b"localhost", 421),
        (b"http:///health", b"localhost", 421),
    ],
)
def test_the_host_of_a_whole_address_counts_before_that_of_the_header(server, target, host, status):
    head = head_with(b"Host: " + host, b"Connection: close").replace(b"/health", target, 1)
    assert answer_to(server, head).status in (status, 400 if status == 421 else status)


def test_a_page_of_this_server_may_ask(server):
    lines = [b"Host: localhost:8000", b"Origin: http://localhost:8000", b"Connection: close"]
    assert answer_to(server, head_with(*lines)).status == 200


def test_a_name_that_was_allowed_is_answered_to(trained):
    with serving(trained[0], "--allowed-host", "Scores.example") as served:
        for lines in (
            [b"Host: scores.example"],
            [b"Host: localhost", b"Origin: https://scores.example"],
        ):
            answer = answer_to(served, head_with(*lines, b"Connection: close"))
            assert answer.status == 200
        assert answer_to(served, head_with(b"Host: other.example")).status == 421


# --- Who is slow, or many -----------------------------------------------------------------------


def test_clients_that_are_slow_are_closed_and_told_why(server):
    begun = {
        "nothing": (b"", []),
        "line ends": (b"\r\n\r\n", []),
        "half a line": (b"GET /hea", [408]),
        "half a head": (b"GET /health HTTP/1.1\r\nHost: ", [408]),
        "a dripping head": (b"GET /health HTTP/1.1\r\nX: ", [408]),
        "half a body": (POST + b"Content-Length: 100\r\n\r\n{", [408]),
        "half a chunk": (POST + CHUNKED + b"\r\n64\r\n{", [408]),
        "a dripping body": (POST + b"Content-Length: 1000000\r\n\r\n", [408]),
        "an unwanted body": (
            b"POST /no HTTP/1.1\r\n" + HOST + b"Content-Length: 99\r\n\r\n",
            [404],
        ),
        "nothing more": (GET, [200]),
        "half of the next": (GET + b"GET /hea", [200, 408]),
    }
    with contextlib.ExitStack() as stack:
        connections = {name: stack.enter_context(connected(server)) for name in begun}
        received = dict.fromkeys(begun, b"")
        for name, (sent, _) in begun.items():
            connections[name].sendall(sent)
        left = {connection: name for name, connection in connections.items()}
        while left:
            for connection in select.select(list(left), [], [], 0.5)[0]:
                piece = connection.recv(MEGABYTE)
                received[left[connection]] += piece
                if not piece:
                    del left[connection]
            for connection, name in left.items():
                if "dripping" in name:
                    with contextlib.suppress(ConnectionError):
                        connection.send(b"a")
    for name, (_, statuses) in begun.items():
        assert [answer.status for answer in answers_in(received[name])] == statuses, name


def test_a_client_that_never_reads_its_answer_is_cut(server, events):
    many = as_json(events) * 100
    with connected(server, receive_buffer=4096) as connection:
        connection.sendall(post(many))
        with pytest.raises(ConnectionError):  # noqa: PT012  # which of them meets the cut is open
            while True:
                connection.sendall(b"\r\n")
                select.select([], [], [], 0.1)


def test_too_many_connections_are_told_so_and_others_are_let_in_again(trained):
    limits = ["--max-connections", 12, "--max-connections-per-address", 5]
    with serving(trained[0], *limits) as served:
        with contextlib.ExitStack() as stack:
            for _ in range(5):
                connection = stack.enter_context(connected(served))
                connection.sendall(GET)
                assert receive(connection).status == 200
            refused = answer_to(served, b"")
            assert refused.status == 503
            assert "127.0.0.1 has 5 connections" in refused.error
            assert refused.headers["retry-after"] == "1"
            for number in range(2, 9):  # other addresses of this machine
                other = stack.enter_context(socket.socket())
                other.bind((f"127.0.0.{number}", 0))
                other.settimeout(60)
                other.connect(served.address)
                other.sendall(GET)
                answer = receive(other)
                assert answer.status == 200
            with socket.socket() as other:
                other.bind(("127.0.0.9", 0))
                other.settimeout(60)
                other.connect(served.address)
                refused = receive(other)
        assert "the server has 12 connections" in refused.error
        until_closed = GET.replace(HOST, HOST + b"Connection: close\r\n")
        while answer_to(served, until_closed).status == 503:
            select.select([], [], [], 0.05)  # until it has noticed that they are gone


# --- The end ------------------------------------------------------------------------------------


def test_the_end_answers_what_was_accepted_whatever_clients_do(trained, events):
    path, network = trained
    encoded = encode(Events.from_awkward(events), open_bundle(path).encoding)
    with torch.no_grad():
        scores = torch.sigmoid(network(torch.from_numpy(encoded.dense())))[:, 0].numpy()
    posted = as_json(events)
    with serving(path) as served, contextlib.ExitStack() as stack:
        idle = stack.enter_context(connected(served))
        half_head = stack.enter_context(connected(served))
        half_body = stack.enter_context(connected(served))
        many = [stack.enter_context(connected(served)) for _ in range(1200)]
        for number, connection in enumerate(many):
            connection.sendall(post([posted[number % len(posted)]]))
        half_head.sendall(b"GET /health HTTP/1.1\r\n")
        half_body.sendall(POST + b"Content-Length: 1000\r\n\r\n{")
        served.process.send_signal(signal.SIGTERM)
        served.process.wait(timeout=30)  # it takes ten seconds and what a busy machine adds
        for number, connection in enumerate(many):
            (answer,) = answers_in(read_to_end(connection))
            assert answer.status == 200
            expected = scores[number % len(posted)]
            np.testing.assert_allclose(answer.content["scores"], [expected], atol=1e-6)
        assert read_to_end(idle) == b""
        for connection in (half_head, half_body):
            (answer,) = answers_in(read_to_end(connection))
            assert answer.status == 503
            assert "shutting down" in answer.error
        socket.create_server(served.address).close()  # the port is free
    assert served.process.returncode == 0


def test_clients_that_go_on_asking_lose_no_answer_at_the_end(trained, events):
    request = post(as_json(events[:1]))
    told = []

    def ask(served, started):
        with connected(served) as connection:
            while True:
                connection.sendall(request)
                answer = receive(connection)
                started.set()
                if "connection" in answer.headers:
                    told.append(answer.status)
                    return

    with serving(trained[0]) as served:
        started = [threading.Event() for _ in range(50)]
        clients = [threading.Thread(target=ask, args=(served, each)) for each in started]
        for client in clients:
            client.start()
        for each in started:
            assert each.wait(60)
        served.process.send_signal(signal.SIGTERM)
        for client in clients:
            client.join(60)
        served.process.wait(timeout=30)
    assert told == [200] * 50


def test_health_says_draining_to_who_still_asks(trained):
    with serving(trained[0]) as served, connected(served) as half, connected(served) as asking:
        half.sendall(POST + b"Content-Length: 1000\r\n\r\n{")
        asking.sendall(GET)
        assert receive(asking).status == 200
        served.process.send_signal(signal.SIGTERM)
        while True:
            with socket.socket() as late:
                if late.connect_ex(served.address):
                    break  # the end has begun
        asking.sendall(GET)
        (answer,) = answers_in(read_to_end(asking))
        assert answer.status == 503
        assert answer.content["status"] == "draining"
        assert answer.headers["connection"] == "close"


# --- Large bodies -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b'{"events":[{"x":[%b]}]}' % b",".join([b"[]"] * 5_000_000), 413, "event 0: more than"),
        (
            b'{"events":[{%b}]}' % b",".join(b'"%d":0' % i for i in range(1_000_000)),
            413,
            "event 0: more than",
        ),
        (b'{"events":[%b]}' % b",".join([b"[[],[],[],[]]"] * 16_000), 422, "event 0: expected an"),
        (b'{"events":[%b]}' % b",".join([b"[%b]" % b",".join([b"[]"] * 4000)] * 900), 413, "about"),
        (b'{"events":[%b]}' % (b"," * 16_000_000), 413, "16000001 events in one request"),
        (b'{"events":[{"x":"%b"}]}' % (b"a" * 10_000_000), 413, "event 0: more than"),
        (b'{"events":%b' % (b"[" * 10_000_000), 413, "event 0: more than"),
        (b'{"events":[%b' % (b" " * 10_000_000), 400, "unexpected end of the list"),
    ],
    ids=["lists", "names", "many", "spread", "commas", "string", "deep", "spaces"],
)
def test_eight_bodies_of_many_values_take_little_memory(server, body, status, message):
    before = memory_of(server)
    most = before
    request = POST + b"Content-Length: %d\r\n\r\n" % len(body) + body
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(connected(server)) for _ in range(8)]
        senders = [threading.Thread(target=c.sendall, args=(request,)) for c in connections]
        for sender in senders:
            sender.start()
        left = dict.fromkeys(connections, b"")
        while not all(re.search(rb"\}$", received) for received in left.values()):
            most = max(most, memory_of(server))
            for connection in select.select(connections, [], [], 0.01)[0]:
                left[connection] += connection.recv(MEGABYTE)
        for sender in senders:
            sender.join()
    for received in left.values():
        (answer,) = answers_in(received)
        assert answer.status == status
        assert message in answer.error
    assert most - before < 400 * MEGABYTE


def test_a_large_body_is_scored_as_its_events_alone(server, events):
    posted = as_json(events)
    with httpx.Client(timeout=60) as client:
        answer = client.post(server.predict, json={"events": posted * 30})
        few = client.post(server.predict, json={"events": posted[:20]})
    assert answer.status_code == 200
    found = np.array(answer.json()["scores"]).reshape(30, len(posted))
    # A product of matrices may round an event otherwise at another place, as with Debian's PyTorch.
    np.testing.assert_allclose(found, np.broadcast_to(found[0], found.shape), atol=1e-6)
    np.testing.assert_allclose(found[0, :20], few.json()["scores"], atol=1e-6)
