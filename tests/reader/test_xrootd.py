import shutil
import signal
import socket
import threading
from dataclasses import replace

import numpy as np
import pytest
from servers import http_server, needs_xrootd, xrootd_server

from mlaas4hep_dask.errors import DataError, UnreadableFileError
from mlaas4hep_dask.reader import Access, Partition, counting, plan_file, read

pytestmark = pytest.mark.server


@pytest.fixture
def server(cms_files):
    with xrootd_server(cms_files[0].parent) as (process, _):
        yield process


def url_of(base, path):
    return f"{base}/{path.name}"


def whole(plan):
    planned = plan.planned(list(plan.branches))
    limits = {"target_bytes": 1 << 40, "max_events": 1 << 40}
    return planned.partitions(**limits, num_entries=plan.num_entries)[0]


@needs_xrootd
@pytest.mark.timeout(120)
def test_a_path_that_lacks_its_second_slash_is_told_at_once(server, cms_files):
    url = url_of(server.url, cms_files[0]).replace(f":{server.port}//", f":{server.port}/")
    with pytest.raises(UnreadableFileError, match="two slashes, as in root://host//path") as caught:
        plan_file(url, "events", "any")
    assert "attempts" not in str(caught.value)


@needs_xrootd
@pytest.mark.timeout(120)
def test_files_read_by_xrootd_equal_the_local_ones(server, cms_files, cms_plans):
    for path, local in zip(cms_files[:2], cms_plans, strict=False):
        remote = plan_file(url_of(server.url, path), "events", "any")
        assert (remote.uuid, remote.branches) == (local.uuid, local.branches)
        branches = list(local.branches.values())
        there, here = read(whole(remote), branches), read(whole(local), branches)
        for name, content in here.contents.items():
            np.testing.assert_array_equal(there.contents[name], content)


@needs_xrootd
@pytest.mark.timeout(120)
def test_a_file_that_xrootd_does_not_have_is_named_at_once(server):
    with counting() as counts, pytest.raises(UnreadableFileError, match="3011"):
        plan_file(f"{server.url}/absent.root", "events", "any")
    assert not counts.retries


@needs_xrootd
@pytest.mark.timeout(120)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_server_that_dies_or_stops_in_mid_read_is_an_error_not_a_hang(
    server, cms_files, hasty, number
):
    how = replace(hasty, timeout=3, attempts=2)
    plan = plan_file(url_of(server.url, cms_files[0]), "events", "any", how)
    server.send(number)
    with counting() as counts, pytest.raises(UnreadableFileError, match="after 2 attempts"):
        read(whole(plan), list(plan.branches.values()))
    assert counts.retries == {plan.file: 1}


@needs_xrootd
@pytest.mark.timeout(120)
def test_a_replica_takes_over_when_the_first_server_lacks_the_file(server, cms_files, tmp_path):
    with http_server(cms_files[0].parent) as (_, base):
        file = f"{base}/nowhere/{cms_files[0].name}|{url_of(server.url, cms_files[0])}"
        with counting() as counts:
            plan = plan_file(file, "events", "any")
            read(whole(plan), [plan.branches["NJet"]])
        assert counts.retries == {file: 2}
        moved = plan_file(
            f"root://127.0.0.1:1//{cms_files[0].name}",
            "events",
            "any",
            Access(replicas=(server.url,), timeout=3),
        )
        assert moved.uuid == plan.uuid


@pytest.fixture
def mute():
    """A server that accepts connections and never answers."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        accepted = []
        thread = threading.Thread(target=_accept, args=(listening, accepted), daemon=True)
        thread.start()
        yield f"127.0.0.1:{listening.getsockname()[1]}"
        listening.shutdown(socket.SHUT_RDWR)
        thread.join(timeout=10)
        for connection in accepted:
            connection.close()


def _accept(listening, accepted):
    while True:
        try:
            accepted.append(listening.accept()[0])
        except OSError:
            return


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", ["a.root", "a.parquet", "a.csv"])
@pytest.mark.parametrize("scheme", ["http", "root"])
def test_a_server_that_never_answers_is_given_up(mute, hasty, scheme, name):
    how = replace(hasty, timeout=0.5, attempts=2)
    with counting() as counts, pytest.raises(UnreadableFileError, match="after 2 attempts"):
        plan_file(f"{scheme}://{mute}//{name}", "Events", "any", how)
    assert sum(counts.retries.values()) == 1


@pytest.mark.timeout(60)
def test_a_server_that_failed_is_not_waited_for_again(mute, hasty, cms_files, cms_plans):
    with http_server(cms_files[0].parent) as (_, base), counting() as counts:
        name = cms_files[0].name
        how = replace(hasty, replicas=(f"{base}/",), timeout=1)
        for number in range(3):
            plan = plan_file(f"http://{mute}/{name}?{number}", "events", "any", how)
            assert plan.uuid == cms_plans[0].uuid
        assert sum(counts.retries.values()) == 1


def test_another_file_at_a_replica_is_noticed(cms_files, cms_plans, tmp_path):
    shutil.copy(cms_files[1], tmp_path / cms_files[0].name)
    with http_server(tmp_path) as (_, base):
        plan = cms_plans[0]
        file = f"{base}/{cms_files[0].name}"
        with pytest.raises(DataError, match="has changed since it was planned"):
            read(Partition(file, "events", plan.uuid, 0, 9, "s"), [plan.branches["NJet"]])
