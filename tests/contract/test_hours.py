"""Laws of the arithmetic behind the projected hours."""

import importlib.util
import math
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paths import REPOSITORY

spec = importlib.util.spec_from_file_location("hours", REPOSITORY / "benchmarks" / "hours.py")
hours = sys.modules["hours"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(hours)

RATES = hours.Rates(
    read=2e-6, specs=2e-6, encode=4e-6, block=3e-6, epoch=6e-6, last=7e-6, stored=400, packed=800
)
PLAIN = hours.Place("plain", readers=10, trainers=2)
HOUR = hours.HOUR

times = st.floats(1.0, 1e5)
places = st.builds(
    hours.Place,
    name=st.just("any"),
    readers=st.integers(1, 1000),
    trainers=st.integers(1, 32),
    apart=st.booleans(),
    worker_bandwidth=st.floats(1e6, 1e9),
    storage_bandwidth=st.floats(1e8, 1e11),
    memory=st.floats(1e8, 1e11),
    disk=st.floats(1e8, 1e12),
    wait=st.floats(0.0, 1e5),
    start=st.floats(0.0, 100.0),
    lifetime=st.one_of(st.just(math.inf), st.floats(1e3, 1e6)),
    partition=st.floats(1e3, 1e6),
    dispatch=st.floats(0.0, 0.01),
)
events = st.floats(1e4, 1e12)


def seconds(number, place, rates=RATES):
    found = hours.project(number, rates, place, epochs=3)
    return [found.specs.seconds, found.encode.seconds, found.train.seconds, found.total]


def test_without_a_site_a_pass_is_its_processor_seconds_over_all_workers():
    found = hours.project(1e9, RATES, PLAIN, epochs=1)
    assert found.specs == hours.Phase(1e9 * 2e-6 / 10, "compute")
    assert found.encode == hours.Phase(1e9 * 4e-6 / 10, "compute")


def test_one_worker_that_trains_spends_what_reading_and_learning_take_together():
    place = hours.Place("one", 1, 1, apart=False)
    found = hours.project(1e6, RATES, place, epochs=3)
    assert found.train.seconds == pytest.approx(1e6 * (3e-6 + 2 * 6e-6 + 7e-6))
    assert found.total == pytest.approx(found.specs.seconds + found.train.seconds)


def test_a_slow_storage_bounds_a_pass_however_many_workers_there_are():
    slow = replace(PLAIN, storage_bandwidth=1e6)
    for readers in (10, 1000):
        found = hours.project(1e9, RATES, replace(slow, readers=readers), epochs=1)
        assert found.specs == hours.Phase(1e9 * 400 / 1e6, "storage")


def test_the_scheduler_bounds_a_pass_of_many_workers_with_small_tasks():
    many = replace(PLAIN, readers=1000, partition=1e4, dispatch=2e-3)
    found = hours.project(1e9, RATES, many, epochs=1)
    assert found.specs == hours.Phase(1e5 * 2e-3, "scheduler")


def test_a_worker_fetches_bytes_before_it_works_on_them():
    found = hours.project(1e9, RATES, replace(PLAIN, worker_bandwidth=1e7), epochs=1)
    assert found.specs.seconds == pytest.approx(1e9 * (2e-6 + 400 / 1e7) / 10)
    assert found.specs.bound == "network"


def test_a_run_begins_after_the_queue_and_the_start_of_its_jobs():
    waiting = replace(PLAIN, wait=1800.0, start=30.0)
    plain, late = seconds(1e9, PLAIN), seconds(1e9, waiting)
    assert late[3] == pytest.approx(plain[3] + 1830.0)


def test_work_longer_than_a_lifetime_waits_in_the_queue_again_and_does_half_tasks_twice():
    # Tasks of 2 s, and so 100 s of use in each life.
    place = replace(PLAIN, lifetime=101.0, partition=1e6, wait=10.0)
    found = hours.project(1e9, RATES, place, epochs=1)  # 200 s of pass 1
    assert found.specs == hours.Phase(200.0 + 10.0 + 1.0, "compute", 1.0)


def test_epochs_longer_than_a_lifetime_go_on_from_the_last_checkpoint():
    # Lives of 1,000 s, of which the last 50 s are lost: 950 s of use in each.
    place = replace(PLAIN, lifetime=1000.0, wait=5.0, checkpoint=100.0)
    found = hours.project(1e9, RATES, place, epochs=1).train
    plain = hours.project(1e9, RATES, PLAIN, epochs=1).train.seconds  # one epoch, of 3,500 s
    assert plain > 3 * 1000.0
    assert found == hours.Phase(plain + 3 * (5.0 + 50.0), "compute", 3 * 50.0)


def test_a_worker_that_ends_before_anything_is_kept_never_gets_on():
    short = replace(PLAIN, lifetime=40.0, checkpoint=100.0)
    found = hours.project(1e9, RATES, short, epochs=1).train
    assert found == hours.Phase(math.inf, "walltime", math.inf)


def test_an_epoch_shorter_than_the_time_between_checkpoints_is_what_is_done_again():
    place = replace(PLAIN, lifetime=50.0, checkpoint=1e6)
    found = hours.project(1e7, RATES, place, epochs=3).train  # 30, 30 and 35 s
    assert found == hours.Phase(95.0 + 2 * 17.5, "compute", 2 * 17.5)


def test_blocks_without_room_are_read_in_every_epoch():
    place = hours.Place("one", 1, 1, apart=False, memory=1e9, disk=1e9)
    roomy = replace(place, disk=1e12)
    assert hours.kept(1e8, RATES, roomy) == "disk"
    assert hours.kept(1e8, RATES, place) == "none"
    more = seconds(1e8, place)[2] - seconds(1e8, roomy)[2]
    assert more == pytest.approx(2 * 1e8 * RATES.block)


@given(events, places)
def test_everything_is_longer_at_a_site_than_without_limits(number, place):
    free = hours.Place("free", place.readers, place.trainers, apart=place.apart)
    for ours, least in zip(seconds(number, place), seconds(number, free), strict=True):
        assert ours >= least * (1 - 1e-12)


@given(events, places, st.integers(2, 10))
def test_more_readers_never_make_a_pass_longer(number, place, factor):
    more = replace(place, readers=factor * place.readers)
    for many, few in zip(seconds(number, more)[:2], seconds(number, place)[:2], strict=True):
        assert many <= few * (1 + 1e-12)


@given(events, places, st.floats(1.0, 100.0))
def test_more_events_never_make_a_pass_shorter(number, place, factor):
    larger, smaller = seconds(factor * number, place), seconds(number, place)
    for many, few in zip(larger[:2], smaller[:2], strict=True):
        assert many >= few * (1 - 1e-12)


@given(times, st.floats(1.0, 1e6), st.floats(1.0, 2e5), times, times)
def test_what_walltimes_cost_is_waiting_starting_and_what_is_done_again(
    length, piece, lifetime, wait, start
):
    place = replace(PLAIN, lifetime=lifetime, wait=wait, start=start)
    found = hours.interrupted(hours.Phase(length, "compute"), place, piece)
    if math.isinf(found.seconds):
        assert piece / 2 >= lifetime - start
        return
    ends = round(found.redone / (piece / 2))
    assert found.seconds == pytest.approx(length + found.redone + ends * (wait + start))
    useful = lifetime - start - piece / 2
    assert ends * useful <= length * (1 + 1e-9) <= (ends + 1) * useful * (1 + 2e-9)
