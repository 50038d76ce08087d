from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlaas4hep_dask.cluster.batch.actions import Cancel, GiveUp, Submit, Tell
from mlaas4hep_dask.cluster.batch.limits import Limits, Size
from mlaas4hep_dask.cluster.batch.states import Seen, State, View, finish, step

LIMITS = Limits({"readers": Size(2, 4), "trainers": Size(1, 1)}, max_losses=5)
STATES = ("pending", "running", "held", "gone")


def kinds(actions, kind):
    return [action for action in actions if isinstance(action, kind)]


class World:
    """A batch system that does what it is told, and a clock."""

    def __init__(self, limits=LIMITS):
        self.state, self.limits = State("run-"), limits
        self.now, self.work = 0.0, 0.0
        self.queue, self.connected, self.submitted, self.refused = {}, set(), {}, {}
        self.idle = set()
        self.refuses, self.backlog = "", {}
        self.number = 0

    def step(self, seconds=1.0, *, answers=True):
        self.now += seconds
        view = View(
            self.now,
            dict(self.queue) if answers else None,
            frozenset(self.connected),
            self.work,
            self.backlog,
            frozenset(self.idle),
            self.submitted,
            self.refused,
        )
        self.submitted, self.refused = {}, {}
        self.state, actions = step(self.state, view, self.limits)
        for action in actions:
            if isinstance(action, Submit) and self.refuses:
                self.refused[action.worker] = self.refuses
            elif isinstance(action, Submit):
                self.number += 1
                self.submitted[action.worker] = str(self.number)
                self.queue[str(self.number)] = Seen("pending", "Resources")
            elif isinstance(action, Cancel):
                self.queue.pop(action.id, None)
                self.connected.discard(action.worker)
        return actions

    def start(self):
        """All jobs run, and their workers are there."""
        self.step()
        self.step()
        for job in self.state.jobs:
            self.queue[job.id] = Seen("running")
            self.connected.add(job.worker)
        return self.step()

    def lose(self, job, reason="", *, is_walltime=False):
        self.queue[job.id] = Seen("gone", reason, is_walltime)
        self.connected.discard(job.worker)
        return self.step()


@pytest.fixture
def world():
    found = World()
    found.start()
    return found


def test_it_begins_with_the_minimum_of_every_group():
    asked = kinds(World().step(), Submit)
    assert [each.group for each in asked] == ["readers", "readers", "trainers"]
    assert len({each.worker for each in asked}) == 3
    assert asked[0].worker.startswith("readers-run-")


def test_a_lost_job_is_told_and_replaced_in_the_same_step(world):
    lost = world.state.jobs[0]
    actions = world.lose(lost, "NODE_FAIL")
    assert [each.group for each in kinds(actions, Submit)] == [lost.group]
    (told,) = kinds(actions, Tell)
    assert "left the queue (NODE_FAIL)" in told.text
    assert told.log
    assert lost not in world.state.jobs


def test_a_held_job_is_told_cancelled_and_replaced(world):
    lost = world.state.jobs[2]
    world.queue[lost.id] = Seen("held", "no such file")
    actions = world.step()
    assert kinds(actions, Cancel) == [Cancel(lost.id, lost.worker)]
    assert [each.group for each in kinds(actions, Submit)] == ["trainers"]
    assert "is held (no such file)" in kinds(actions, Tell)[0].text


def test_losses_without_work_end_the_run_and_cancel_what_is_left(world):
    for _ in range(LIMITS.max_losses):
        assert not kinds(world.lose(world.state.jobs[0], "FAILED"), GiveUp)
        world.step()
    left = [job.id for job in world.state.jobs[1:]]
    actions = world.lose(world.state.jobs[0], "FAILED")
    assert "6 jobs were lost without work done in between" in kinds(actions, GiveUp)[0].reason
    assert {each.id for each in kinds(actions, Cancel)} >= set(left)
    assert not kinds(actions, Submit)
    assert world.step() == ()


def test_losses_after_which_work_was_done_never_end_a_run(world):
    for _ in range(5 * LIMITS.max_losses):
        world.work += 1
        assert kinds(world.lose(world.state.jobs[0], "PREEMPTED"), Submit)
        world.step()


def test_ends_at_the_walltime_are_no_losses(world):
    for _ in range(5 * LIMITS.max_losses):
        actions = world.lose(world.state.jobs[0], "TIMEOUT", is_walltime=True)
        assert kinds(actions, Submit)
        assert kinds(actions, Tell)
        world.step()


def test_refusals_are_told_with_their_words_and_end_the_run_after_some():
    world = World(replace(LIMITS, sizes={"readers": Size(1, 1)}))
    world.refuses = "invalid partition specified: none"
    told, ends = [], []
    for _ in range(100):
        actions = world.step()
        told += [each.text for each in kinds(actions, Tell)]
        ends += kinds(actions, GiveUp)
    assert len(told) == LIMITS.max_refusals
    assert all(world.refuses in text for text in told)
    (end,) = ends
    assert world.refuses in end.reason


def test_a_job_that_is_accepted_makes_refusals_forgotten():
    world = World(replace(LIMITS, sizes={"readers": Size(1, 1)}))
    for _ in range(10):
        world.refuses = "" if world.state.jobs else "the controller is busy"
        world.step(LIMITS.pause)  # refused, once of the three times that end a run
        world.refuses = ""
        for _ in range(3):
            assert not kinds(world.step(LIMITS.pause), GiveUp)
        (job,) = world.state.jobs
        assert job.id
        world.refuses = "the controller is busy"
        world.lose(job, is_walltime=True)
        assert world.refused


def test_pending_is_told_once_for_each_reason_and_again_after_a_while():
    world = World()
    world.step()
    told = [each.text for _ in range(300) for each in kinds(world.step(), Tell)]
    assert len(told) == 1
    assert "has been pending for" in told[0]
    assert "(Resources)" in told[0]
    for job in world.state.jobs:
        world.queue[job.id] = Seen("pending", "ReqNodeNotAvail")
    told = [each.text for _ in range(599) for each in kinds(world.step(), Tell)]
    assert len(told) == 1
    assert "(ReqNodeNotAvail)" in told[0]
    assert kinds([action for _ in range(2) for action in world.step()], Tell)


def test_a_job_that_runs_and_never_connects_is_replaced_with_the_end_of_its_log():
    world = World()
    world.start()
    job = world.state.jobs[0]
    world.state = replace(
        world.state,
        jobs=tuple(replace(each, has_connected=False) for each in world.state.jobs),
    )
    world.connected.discard(job.worker)
    told, cancelled = [], []
    for _ in range(int(LIMITS.connect) + 2):
        actions = world.step()
        told += [each for each in kinds(actions, Tell) if each.log]
        cancelled += kinds(actions, Cancel)
    assert cancelled == [Cancel(job.id, job.worker)]
    (only,) = told
    assert "its worker has not connected" in only.text


def test_a_worker_that_comes_back_in_time_is_not_replaced(world):
    job = world.state.jobs[0]
    world.connected.discard(job.worker)
    for _ in range(int(LIMITS.away) - 1):
        assert world.step() == ()
    world.connected.add(job.worker)
    for _ in range(3 * int(LIMITS.away)):
        assert world.step() == ()


def test_a_worker_that_stays_away_loses_its_job(world):
    job = world.state.jobs[0]
    world.connected.discard(job.worker)
    actions = [action for _ in range(int(LIMITS.away) + 2) for action in world.step()]
    assert kinds(actions, Cancel) == [Cancel(job.id, job.worker)]
    assert len(kinds(actions, Submit)) == 1


def test_readers_grow_with_the_backlog_and_shrink_by_those_that_wait(world):
    world.backlog = {"readers": 100}
    actions = world.step()
    assert [each.group for each in kinds(actions, Submit)] == ["readers"] * 2
    world.step()
    world.backlog = {"readers": 0}
    waiting = {job.worker for job in world.state.jobs if job.worker not in world.connected}
    assert {each.worker for each in kinds(world.step(), Cancel)} == waiting
    assert not kinds(world.step(), Cancel)


def test_readers_beyond_the_minimum_end_once_they_have_long_been_idle(world):
    world.backlog = {"readers": 100}
    world.start()
    names = [job.worker for job in world.state.jobs if job.group == "readers"]
    assert len(names) == 4
    world.backlog = {"readers": 0}
    world.idle = {*names[1:]}
    assert not kinds(world.step(), Cancel)
    world.idle.remove(names[2])  # it got something to do
    world.step()
    world.idle.add(names[2])
    ended = kinds(world.step(LIMITS.idle), Cancel)
    assert {each.worker for each in ended} == {names[1], names[3]}
    assert not kinds(world.step(10 * LIMITS.idle), Cancel)  # the minimum stays
    assert world.state.losses == 0


def test_a_worker_that_has_done_its_time_is_replaced_and_is_no_loss(world):
    world.limits = replace(LIMITS, lifetimes={"readers": 100.0})
    world.step(100.0)
    first = world.state.jobs[0]
    assert first.group == "readers"
    actions = world.lose(first, "ended by itself")
    (told,) = kinds(actions, Tell)
    assert (told.is_warning, told.log) == (False, False)
    assert [each.group for each in kinds(actions, Submit)] == ["readers"]
    assert world.state.losses == 0
    world.step()
    early = world.state.jobs[-1]  # it has not lived
    assert kinds(world.lose(early, "ended by itself"), Tell)[0].is_warning
    assert world.state.losses == 1


def test_a_minimum_that_does_not_come_in_time_ends_the_run_with_the_reasons():
    world = World(replace(LIMITS, patience=100.0))
    ends = [each for _ in range(120) for each in kinds(world.step(), GiveUp)]
    (end,) = ends
    assert "0 of at least 2 readers, 0 of at least 1 trainers" in end.reason
    assert "Resources" in end.reason
    assert world.queue == {}


def test_a_queue_that_does_not_answer_loses_no_job_and_is_told_once(world):
    before = world.state.jobs
    told = [each for _ in range(50) for each in kinds(world.step(answers=False), Tell)]
    assert world.state.jobs == before
    assert len(told) == 1


def test_the_end_cancels_all_jobs(world):
    assert {each.id for each in finish(world.state)} == set(world.queue)


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(("state", "connect", "leave", "work", "backlog", "refuse", "silence")),
        st.integers(0, 6),
        st.sampled_from(STATES),
        st.booleans(),
        st.sampled_from((0.5, 2.0, 20.0, 400.0)),
    ),
    max_size=60,
)


@given(EVENTS)
@settings(max_examples=400)
def test_whatever_happens_no_loss_is_silent_and_no_group_grows_over_its_maximum(events):
    world = World()
    for what, which, word, flag, seconds in events:
        jobs = [job for job in world.state.jobs if job.id in world.queue]
        job = jobs[which % len(jobs)] if jobs else None
        world.refuses = "no" if what == "refuse" else ""
        if what == "state" and job is not None:
            world.queue[job.id] = Seen(word, "why", word == "gone" and flag)
        elif what == "connect" and job is not None and world.queue[job.id].state == "running":
            world.connected.add(job.worker)
        elif what == "leave" and job is not None:
            world.connected.discard(job.worker)
        elif what == "work":
            world.work += 1
        elif what == "backlog":
            world.backlog = {"readers": which, "trainers": which}
        before = {each.worker for each in world.state.jobs}
        given_up = world.state.given_up
        actions = world.step(seconds, answers=what != "silence")
        after = {each.worker for each in world.state.jobs}
        texts = " ".join(each.text for each in kinds(actions, Tell))
        refused = len(before - after) - sum(worker in texts for worker in before - after)
        assert refused <= texts.count("refused a job")  # all others are named
        for group, size in LIMITS.sizes.items():
            assert sum(each.group == group for each in world.state.jobs) <= size.maximum
        submitted = {each.worker for each in kinds(actions, Submit)}
        assert submitted == after - before
        if given_up:
            assert actions == ()
        if kinds(actions, GiveUp):
            assert {each.id for each in finish(world.state)} <= {
                each.id for each in kinds(actions, Cancel)
            }


@given(st.lists(st.sampled_from(("gone", "held")), min_size=30, max_size=30))
def test_jobs_that_are_always_lost_end_the_run_within_bounded_steps(ends):
    world = World()
    for end in ends:
        world.step()
        for job in world.state.jobs:
            world.queue[job.id] = Seen(end, "why")
    assert world.state.given_up
    assert world.number <= LIMITS.max_losses + 8
