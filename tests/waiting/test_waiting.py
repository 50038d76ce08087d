"""Waits for a cluster end when nobody is left who could end them, and say why."""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace

import dask
import psutil
import pytest
from dask_process import scheduler_process
from distributed import Client, LocalCluster, Scheduler, SpecCluster, Worker, get_worker, wait

from mlaas4hep_dask.cluster import connect, dashboard_lines, scratch
from mlaas4hep_dask.cluster.reach import Bounds, require_same_versions, require_scheduler
from mlaas4hep_dask.config import Cluster
from mlaas4hep_dask.errors import ClusterError
from mlaas4hep_dask.waiting import (
    ClusterHandle,
    LostWorkerError,
    OverdueError,
    Patience,
    processes,
    workers_of,
)
from mlaas4hep_dask.waiting.shared import share
from mlaas4hep_dask.waiting.waits import gather, on_workers, wait_for_workers
from mlaas4hep_dask.waiting.workers import living

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]
LIMIT = 700_000_000  # bytes of memory of a worker


@pytest.fixture(scope="module")
def cluster():
    """Two workers that are started again when they die."""
    with connect(Cluster(workers=2, memory_limit="700MB"), ranks=1) as client:
        yield client


@pytest.fixture
def client(cluster):
    wait_for_workers(cluster, 2, "a test", seconds=100)
    return cluster


SOON = Patience(first_word=0.5, no_worker=2.0, paused=2.0)  # words and bounds within seconds


def test_large_arguments_are_sent_without_a_word_of_dask(client):
    content = bytes(12 << 20)  # a warning would be an error
    assert ClusterHandle(client).submit(len, content).result(timeout=60) == len(content)


def crash(number):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize(
    ("function", "argument", "expected"),
    [
        (crash, signal.SIGSEGV, r"was ended by SIGSEGV \(signal 11, a fault in compiled code\)"),
        (crash, signal.SIGKILL, r"was ended by SIGKILL \(signal 9, as the system does .* memory"),
        (os._exit, 137, r"was ended by SIGKILL \(signal 9, exit status 137, as the system"),
        (os._exit, 3, "ended with exit status 3"),
    ],
)
def test_how_the_process_of_a_worker_ended_is_told(client, function, argument, expected):
    scheduler = client.cluster.scheduler
    allowed, scheduler.allowed_failures = scheduler.allowed_failures, 0
    try:
        with pytest.raises(ClusterError, match=rf"reading: 1 worker died at task .*{expected}"):
            ClusterHandle(client).result(client.submit(function, argument, pure=False), "reading")
    finally:
        scheduler.allowed_failures = allowed


def test_a_shared_value_outlives_all_workers_that_were_to_hold_it(client):
    scheduler = client.cluster.scheduler
    allowed, scheduler.allowed_failures = scheduler.allowed_failures, 0
    naps = [client.submit(nap, 100, workers=[each], pure=False) for each in living(client)]
    try:
        while not all(client.processing().values()):
            time.sleep(0.05)  # polls until all workers are busy
        value = share(client, -40)
        future = client.submit(abs, value, pure=False)
        while value.key not in str(client.processing()):
            time.sleep(0.05)  # polls until it waits for a worker
        for worker in list(living(client)):
            os.kill(workers_of(client).processes.pid(worker), signal.SIGKILL)
        assert gather(client, [future, value], "tasks") == [40, -40]
    finally:
        scheduler.allowed_failures = allowed
        client.cancel(naps, force=True)


def test_a_worker_that_stands_still_is_told_with_its_process_and_ends_the_wait(client, caplog):
    patience = replace(SOON, silent=1.0, mute=3.0)
    worker, _ = last_worker(client)
    pid = workers_of(client).processes.pid(worker)
    future = client.submit(nap, 6, workers=[worker], pure=False)  # goes on after it is cancelled
    os.kill(pid, signal.SIGSTOP)
    text = (
        rf"a nap: no sign of life of worker {worker} \(name \d, host 127.0.0.1, pid {pid}\) since"
    )
    try:
        with (
            caplog.at_level(logging.WARNING, "mlaas4hep_dask.waiting"),
            pytest.raises(ClusterError, match=text),
        ):
            ClusterHandle(client, patience).result(future, "a nap")
        assert f"pid {pid}) since" in caplog.text
    finally:
        os.kill(pid, signal.SIGCONT)
        client.cancel([future], force=True)


def test_a_wait_with_a_bound_ends(client):
    future = client.submit(nap, 4, pure=False)
    with pytest.raises(OverdueError, match=r"a nap: no end after 1\.5 s"):
        ClusterHandle(client, SOON).result(future, "a nap", seconds=1.5)
    client.cancel([future], force=True)


def last_worker(client):
    there = processes(living(client))
    return max(there), there


def kill(client, worker):
    (pid,) = client.run(os.getpid, workers=[worker]).values()
    os.kill(pid, signal.SIGKILL)
    while worker in living(client):
        time.sleep(0.05)  # between looks


def nap(seconds):
    threading.Event().wait(seconds)


def test_a_result_whose_worker_died_before_it_was_fetched_is_an_error(client):
    worker, there = last_worker(client)
    future = client.submit(os.getpid, workers=[worker], pure=False)
    wait([future])
    kill(client, worker)
    with pytest.raises(LostWorkerError, match=rf"a rank: worker {worker} was ended by SIGKILL"):
        gather(client, [future], "a rank", on={worker: there[worker]})


def test_a_pinned_task_whose_worker_is_retired_is_an_error():
    with connect(Cluster(workers=2), ranks=1) as client:
        worker, there = last_worker(client)
        future = client.submit(nap, 100, workers=[worker], pure=False)
        thread = threading.Thread(target=client.retire_workers, args=([worker],))
        thread.start()
        with pytest.raises(LostWorkerError, match=r"left|ended with exit status 0") as caught:
            gather(client, [future], "a rank", on={worker: there[worker]})
        assert caught.value.workers == [worker]
        thread.join()


def test_another_process_at_the_address_of_a_worker_is_not_that_worker(client):
    worker, _ = last_worker(client)
    future = client.submit(nap, 5, workers=[worker], pure=False)
    with pytest.raises(LostWorkerError):
        gather(client, [future], "a rank", on={worker: "the folder of the one before"})


def test_the_first_error_of_a_task_comes_before_others_have_ended(client):
    futures = [client.submit(nap, 30, pure=False), client.submit(int, "x", pure=False)]
    began = time.monotonic()
    with pytest.raises(ValueError, match="invalid literal"):
        gather(client, futures, "tasks")
    assert time.monotonic() - began < 28  # the other still naps
    client.cancel(futures, force=True)


def test_results_come_in_the_order_of_the_tasks(client):
    futures = client.map(abs, range(-20, 0), pure=False)
    assert gather(client, futures, "tasks") == list(range(20, 0, -1))
    assert gather(client, [], "nothing") == []
    assert ClusterHandle(client).result(futures[3], "one") == 17


held = []


def fill(share):
    """Take memory until this worker uses a share of its limit."""
    process = psutil.Process()
    while process.memory_info().rss < share * LIMIT:
        held.append(b"x" * 5_000_000)
        time.sleep(0.02)  # the nanny looks now and then
    return get_worker().address


def test_a_worker_that_was_ended_for_memory_is_told_as_such(client):
    worker, there = last_worker(client)
    future = client.submit(fill, 3.0, workers=[worker], pure=False)
    with pytest.raises(
        LostWorkerError, match=r"was ended for memory: it used \d+ MB of its limit of 700 MB"
    ):
        gather(client, [future], "a rank", on={worker: there[worker]})
    client.cancel([future], force=True)


def test_a_task_that_ends_workers_one_after_the_other_names_memory(client):
    scheduler = client.cluster.scheduler
    allowed, scheduler.allowed_failures = scheduler.allowed_failures, 0
    try:
        with pytest.raises(ClusterError, match=r"reading: 1 worker died .* 'fill'; .* for memory"):
            ClusterHandle(client).result(client.submit(fill, 3.0, pure=False), "reading")
    finally:
        scheduler.allowed_failures = allowed


def test_a_worker_that_is_full_and_takes_no_task_is_told_and_ends_the_wait(client, caplog):
    worker, there = last_worker(client)
    on = {worker: there[worker]}
    future = client.submit(fill, 0.87, workers=[worker], pure=False)
    assert gather(client, [future], "filling", on=on, patience=SOON) == [worker]
    more = client.submit(abs, -1, workers=[worker], pure=False)
    text = r"a rank: worker \S+ is paused: \d+ MB of its limit of 700 MB of memory are in use"
    with (
        caplog.at_level(logging.WARNING, "mlaas4hep_dask.waiting"),
        pytest.raises(ClusterError, match=text),
    ):
        gather(client, [more], "a rank", on=on, patience=SOON)
    assert "is paused" in caplog.text
    client.cancel([future, more], force=True)
    kill(client, worker)


def test_workers_that_fail_or_have_left_are_absent_from_what_all_return(client):
    worker, there = last_worker(client)
    asked = [*there, "tcp://127.0.0.1:1"]
    assert set(on_workers(client, os.getpid, workers=asked, what="pids")) == set(there)
    assert on_workers(client, int, "x", workers=[worker], what="numbers") == {}


def test_a_cluster_without_workers_says_so_and_ends_the_wait(caplog):
    with (
        LocalCluster(n_workers=0, processes=False, dashboard_address="127.0.0.1:0") as empty,
        Client(empty) as client,
        caplog.at_level(logging.WARNING, "mlaas4hep_dask.waiting"),
    ):
        with pytest.raises(
            ClusterError, match=r"predict: waiting for 1 worker \(none is here\), for 2 s, and"
        ):
            ClusterHandle(client, SOON).result(client.submit(abs, -1), "predict")
        assert "predict: waiting for 1 worker (none is here), for 1 s now" in caplog.text
        with pytest.raises(ClusterError, match=r"2 workers needed, and after 0\.5 s .* has 0"):
            wait_for_workers(client, 2, "training", seconds=0.5, patience=SOON)


def test_a_scheduler_that_stops_or_dies_is_told_in_one_line(tmp_path, caplog):
    with (
        caplog.at_level(logging.CRITICAL, "distributed"),
        scheduler_process(tmp_path) as (process, file),
        Client(scheduler_file=str(file)) as client,
    ):
        workers_of(client).answer_timeouts = (0.5, 1.0)
        living(client)
        future = client.submit(abs, -1)
        process.send_signal(signal.SIGSTOP)
        with pytest.raises(ClusterError, match=r"at tcp://\S+ is gone \(it has not answered for"):
            ClusterHandle(client, SOON).result(future, "specs")
        handle = ClusterHandle(client, SOON)
        for ask in (
            lambda: handle.leave("board", "name", b"words"),
            lambda: handle.find("board", "name"),
            lambda: handle.clear("board"),
            handle.tell_ends,
            lambda: dashboard_lines(client, Cluster(address=client.scheduler.address)),
        ):
            with pytest.raises(ClusterError, match=r"at tcp://\S+ is gone \(it has not answered"):
                ask()
        assert handle.ended_in_order() == {}
        process.send_signal(signal.SIGCONT)
        living(client)
        process.kill()
        with pytest.raises(ClusterError, match=r"at tcp://\S+ is gone \("):
            ClusterHandle(client, SOON).result(future, "specs")
        with pytest.raises(ClusterError, match=r"at tcp://\S+ is gone \("):
            handle.hear("topic", print)


def test_an_address_where_no_scheduler_answers_is_told_in_one_line(client, tmp_path):
    worker, _ = last_worker(client)
    server = subprocess.Popen(
        [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=tmp_path,
        text=True,
    )
    port = server.stdout.readline().split(" port ")[1].split()[0]
    cases = {
        "tcp://127.0.0.1:1": "no Dask scheduler answers at tcp://127.0.0.1:1",
        f"tcp://127.0.0.1:{port}": "does not answer as a Dask scheduler",
        f"tls://127.0.0.1:{port}": "needs certificates",
        "tcp://no-such-host.invalid:1": "there is no host 'no-such-host.invalid'",
        worker: f"at {worker} is a Dask worker, not a scheduler",
    }
    try:
        for address, expected in cases.items():
            with pytest.raises(ClusterError) as caught:
                require_scheduler(address, Bounds(listen=0.5, answer=2.0))
            assert expected in str(caught.value)
            assert "\n" not in str(caught.value)
    finally:
        server.kill()
        server.wait(timeout=20)
        server.stdout.close()


def test_a_worker_with_another_version_is_refused(tmp_path):
    (tmp_path / "mlaas4hep_dask").mkdir()
    (tmp_path / "mlaas4hep_dask" / "__init__.py").write_text('__version__ = "0.0.1"')
    with LocalCluster(n_workers=0, dashboard_address="127.0.0.1:0") as empty:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "distributed.cli.dask_worker", "--no-dashboard"),
                *("--no-nanny", "--local-directory", str(tmp_path), empty.scheduler_address),
            ],
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": str(tmp_path)},
            cwd=tmp_path,
        )
        try:
            with Client(empty) as client:
                wait_for_workers(client, 1, "a test", seconds=100)
                with pytest.raises(ClusterError, match=r"has mlaas4hep_dask 0\.0\.1, and this"):
                    require_same_versions(client)
        finally:
            process.kill()
            process.wait(timeout=20)


@pytest.mark.parametrize("limit", ["250MB", "200MB"])
def test_a_memory_limit_below_what_a_worker_weighs_is_an_error(limit):
    with (
        pytest.raises(ClusterError, match=r"cluster\.memory_limit"),
        connect(Cluster(workers=1, memory_limit=limit), ranks=1),
    ):
        pytest.fail("such a cluster is of no use")


def test_folders_that_killed_processes_have_left_are_removed(tmp_path):
    left = tmp_path / f"{scratch.PREFIX}left"
    left.mkdir()
    (left / "block").write_bytes(b"x")
    with scratch.scratch_folder(str(tmp_path)) as first:
        assert list(tmp_path.iterdir()) == [first]
        with scratch.scratch_folder(str(tmp_path)) as second:
            assert first.is_dir()  # of a process that lives
        assert not second.exists()
    assert list(tmp_path.iterdir()) == []


def test_ranks_are_chosen_of_trainers_and_the_same_ones_again(tmp_path):
    names = ["readers-0", "trainers-0", "trainers-1", "other"]
    options = {"nthreads": 1, "local_directory": str(tmp_path), "dashboard": False}
    workers = {name: {"cls": Worker, "options": {**options, "name": name}} for name in names}
    options = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
    scheduler = {"cls": Scheduler, "options": options}
    with SpecCluster(workers=workers, scheduler=scheduler) as cluster, Client(cluster) as client:
        handle = ClusterHandle.of(client)
        assert ClusterHandle.of(handle) is handle
        handle.wait_for_workers(4, "four workers", seconds=60)

        def named(info):
            return {each["name"] for each in info.values()}

        assert named(handle.alive()) == {*names}
        assert named(handle.alive("readers")) == {"readers-0", "other"}
        assert named(handle.alive("trainers")) == {"trainers-0", "trainers-1", "other"}
        assert handle.num_threads("readers") == 2
        chosen = handle.choose(2, "trainers")
        assert chosen.keys() == handle.choose(2, "trainers").keys()
        assert "readers-0" not in named(chosen)
        rather = [address for address in handle.alive("trainers") if address not in chosen]
        assert {*rather} < handle.choose(2, "trainers", rather=rather).keys()
        assert len(handle.choose(9, "trainers")) == 3


def test_certificates_that_cannot_work_are_told_before_anything_is_asked(tmp_path):
    address = "tls://127.0.0.1:1"  # nobody listens there, and nobody is asked
    tls = "distributed.comm.tls"
    file = tmp_path / "ca.pem"
    both = {f"{tls}.client.cert": str(file), f"{tls}.client.key": str(file)}
    cases = [
        ({f"{tls}.ca-file": str(file)}, address, "client.cert, client.key not set"),
        ({**both, f"{tls}.ca-file": "/nowhere.pem"}, address, "ca-file of .* /nowhere.pem, which"),
        (
            {"distributed.comm.require-encryption": True},
            "tcp://127.0.0.1:1",
            "give an address with tls://",
        ),
    ]
    for settings, place, words in cases:
        with dask.config.set(settings), pytest.raises(ClusterError, match=words):
            require_scheduler(place)
