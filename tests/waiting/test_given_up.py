"""Waits that are given up, by an error or a bound, leave a client that others can use."""

import asyncio

import pytest

from mlaas4hep_dask.errors import ClusterError
from mlaas4hep_dask.waiting import ClusterHandle
from mlaas4hep_dask.waiting.taking import Work
from mlaas4hep_dask.waiting.waits import fetch

STEPS = 30  # of the loop, more than a request for a result takes before it is sent


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
