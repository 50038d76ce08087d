"""Which tasks are tried again after deaths of workers that had them."""

import itertools

from distributed.scheduler import KilledWorker, WorkerState

from mlaas4hep_dask.waiting.deaths import ROUNDS, SHARED_ROUNDS, Deaths
from mlaas4hep_dask.waiting.shared import shared_key

LAST = WorkerState(
    address="tcp://127.0.0.1:1",
    status="running",
    pid=1,
    name="a",
    nthreads=1,
    memory_limit=0,
    local_directory="",
    nanny="",
    server_id="a",
    scheduler=None,
)


def given_up(key):
    return KilledWorker(key, LAST, allowed_failures=3)


def test_a_task_is_tried_again_a_few_times_while_others_get_on():
    deaths = Deaths()
    answers = [deaths.may_try_again("a", given_up("measure-1"), done) for done in (5, 9, 10, 11)]
    assert answers == [True] * ROUNDS + [False] * (4 - ROUNDS)


def test_a_task_is_not_tried_again_when_no_other_was_done_since():
    deaths = Deaths()
    assert not deaths.may_try_again("a", given_up("measure-1"), 0)
    assert deaths.may_try_again("a", given_up("measure-1"), 3)
    assert not deaths.may_try_again("a", given_up("measure-1"), 3)


def test_rounds_of_one_task_are_not_those_of_another():
    deaths = Deaths()
    for number in range(100):
        assert deaths.may_try_again(number, given_up("measure-1"), number + 1)


def test_all_deaths_are_told():
    deaths = Deaths()
    error = given_up("measure-1")
    done = itertools.count(1)
    while deaths.may_try_again("a", error, next(done)):
        pass
    assert deaths.num_deaths("a", error) == 4 * (ROUNDS + 1)


def test_a_shared_value_is_tried_again_for_ever_while_its_tasks_get_on():
    deaths = Deaths()
    error = given_up(shared_key("context"))
    assert all(deaths.may_try_again(0, error, done) for done in range(5 * SHARED_ROUNDS))
    still = [deaths.may_try_again(0, error, 5 * SHARED_ROUNDS) for _ in range(SHARED_ROUNDS + 1)]
    assert still.count(True) == SHARED_ROUNDS
