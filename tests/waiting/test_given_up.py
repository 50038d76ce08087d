"""Waits that are given up, by an error or a bound, leave a client that others can use."""

import asyncio
import logging
import threading
import time

import pytest
from dask_process import scheduler_process
from distributed import Client, LocalCluster

from mlaas4hep_dask.errors import ClusterError
from mlaas4hep_dask.waiting import ClusterHandle, OverdueError
from mlaas4hep_dask.waiting.shared import run_again
from mlaas4hep_dask.waiting.taking import Work
from mlaas4hep_dask.waiting.waits import fetch
from mlaas4hep_dask.waiting.watch import Watch

STEPS = 30  # of the loop, more than a request for a result takes before it is sent

pytestmark = pytest.mark.cluster


def test_a_request_that_is_given_up_at_any_point_takes_no_other_with_it(client):
    first, second = client.map(abs, [-1, -2], pure=False)

    async def give_up(after):
        request = asyncio.ensure_future(fetch(client, [first]))
        for _ in range(after):
            await asyncio.sleep(0)
        request.cancel()
        return await fetch(client, [second])

    for after in range(STEPS):
        assert client.sync(give_up, after) == [2]


def test_after_work_that_ended_in_an_error_all_other_work_goes_on(client):
    cluster = ClusterHandle(client)

    def works(number):
        def send(_):
            return client.submit(reciprocal, number, pure=False)

        return Work(send, number)

    for _ in range(20):
        numbers = iter([1, 2, 4, 0, 5, 8, 10])
        with pytest.raises(ZeroDivisionError):
            list(cluster.taken(lambda _, left=numbers: next(map(works, left), None), "halves"))
        assert cluster.result(client.submit(reciprocal, 4, pure=False), "one") == 0.25


def test_the_reason_of_a_cancelled_task_is_told(client):
    future = client.submit(reciprocal, 3, pure=False)
    client.cancel([future], force=True, reason="its user is ill")
    with pytest.raises(ClusterError, match=r"a task: the tasks were cancelled \(.*is ill"):
        ClusterHandle(client).result(future, "a task")


def reciprocal(number):
    return 1 / number


def second_time(path):
    if not path.exists():
        path.touch()
        raise OSError("its worker died")
    return 4


def test_a_task_runs_again_whose_shared_value_this_process_has_forgotten(client, tmp_path):
    shared = client.submit(second_time, tmp_path / "once", key="shared-forgotten")
    future = client.submit(reciprocal, shared)
    assert isinstance(future.exception(), OSError)
    del shared
    client.sync(run_again, client, [future])
    assert future.result() == 0.25


def test_the_time_of_work_counts_only_while_somebody_could_do_it():
    with (
        LocalCluster(n_workers=0, processes=False, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster) as client,
    ):
        watch = Watch(client, "a task", seconds=0.5)
        watch.look()
        time.sleep(1)  # twice the time that it has
        assert not watch.look()
        cluster.scale(1)
        client.wait_for_workers(1)
        watch.look()
        time.sleep(1)
        with pytest.raises(OverdueError, match=r"a task: no end after 0\.5 s"):
            watch.look()


def test_work_ends_in_words_when_the_scheduler_is_killed(tmp_path, caplog):
    with (
        scheduler_process(tmp_path) as (process, file),
        Client(scheduler_file=str(file)) as client,
        caplog.at_level(logging.CRITICAL, "distributed"),
    ):
        works = iter([Work(lambda _: client.submit(abs, -1, pure=False)) for _ in range(4)])
        killer = threading.Timer(1, process.kill)
        killer.start()
        with pytest.raises(ClusterError, match=r"scheduler at tcp://\S+ is gone|were cancelled"):
            list(ClusterHandle(client).taken(lambda _: next(works, None), "numbers"))
        killer.join()
