import math
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import num_examples

from mlaas4hep_dask.cluster.batch.actions import Cancel, GiveUp, Gone, Submit, Tell
from mlaas4hep_dask.cluster.batch.limits import Limits, Size
from mlaas4hep_dask.cluster.batch.states import finish, step
from mlaas4hep_dask.cluster.batch.views import Seen, State, View

LIMITS = Limits({"readers": Size(2, 4), "trainers": Size(1, 1)}, max_losses=5)
STATES = ("pending", "running", "suspended", "held", "gone")


def kinds(actions, kind):
    return [action for action in actions if isinstance(action, kind)]


class World:
    """A batch system that does what it is told, and a clock."""

    def __init__(self, limits=LIMITS):
        self.state, self.limits = State("run-"), limits
        self.now, self.work = 0.0, 0.0
        self.queue, self.connected, self.submitted, self.refused = {}, set(), {}, {}
        self.idle, self.names, self.words = set(), {}, ""
        self.refuses, self.backlog = "", {}
        self.number = 0
        self.most, self.tries_all = math.inf, False  # jobs that it takes
        self.put_off, self.strays, self.ignores = set(), {}, set()
        self.is_deaf, self.per_job = False, {}

    def step(self, seconds=1.0, *, answers=True, lacks=()):
        self.now += seconds
        queue = {
            job: replace(seen, name=self.names.get(job, ""))
            for job, seen in self.queue.items()
            if job not in lacks
        }
        view = View(
            self.now,
            queue if answers else None,
            None if self.is_deaf else self.workers(),
            self.work,
            self.backlog,
            frozenset(self.idle),
            self.submitted,
            self.refused,
            frozenset(self.put_off),
            self.strays,
            self.words,
        )
        self.submitted, self.refused, self.put_off, self.strays = {}, {}, set(), {}
        groups = set()  # that were refused
        self.state, actions = step(self.state, view, self.limits)
        for action in actions:
            if isinstance(action, Submit) and action.group in groups and not self.tries_all:
                self.put_off.add(action.worker)
            elif isinstance(action, Submit) and (self.refuses or len(self.queue) >= self.most):
                self.refused[action.worker] = self.refuses or "you have as many as you may"
                groups.add(action.group)
            elif isinstance(action, Submit):
                self.number += 1
                self.submitted[action.worker] = str(self.number)
                self.queue[str(self.number)] = Seen("pending", "Resources")
                self.names[str(self.number)] = f"mlaas4hep-{action.worker}"
            elif isinstance(action, Cancel) and action.id not in self.ignores:
                self.queue.pop(action.id, None)
                self.connected.discard(action.worker)
        return actions

    def workers(self):
        """How many workers of each job are there."""
        return {name: self.per_job.get(name.split("-")[0], 1) for name in self.connected}

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


def ids(world):
    known = {job.id for job in (*world.state.jobs, *world.state.leaving)}
    return known | set(world.submitted.values())


def test_a_job_that_an_answer_lacks_is_kept_as_long_as_its_worker_is_there(world):
    before = world.state.jobs
    for _ in range(100):
        assert world.step(lacks=world.queue) == ()
    assert [job.worker for job in world.state.jobs] == [job.worker for job in before]
    assert {each.id for each in finish(world.state)} == set(world.queue)
    world.connected.discard(before[0].worker)
    actions = world.step(lacks=world.queue)
    assert [each.group for each in kinds(actions, Submit)] == [before[0].group]
    assert len(kinds(actions, Tell)) == 1


def test_a_job_without_a_worker_has_left_when_several_answers_lack_it():
    world = World()
    world.step()
    world.step()
    asked = set(world.queue)
    assert world.step(lacks=asked) == ()
    assert world.step() == ()  # it is there again
    assert world.step(lacks=asked) == ()
    actions = world.step(LIMITS.absent, lacks=asked)
    assert len(kinds(actions, Tell)) == len(kinds(actions, Submit)) == len(asked)


def test_a_job_that_comes_back_is_taken_back_and_what_is_one_too_many_ends(world):
    job = world.state.jobs[0]
    world.connected.discard(job.worker)
    (new,) = kinds(world.step(lacks={job.id}), Submit)
    world.connected.add(job.worker)
    actions = world.step()
    assert "it is taken back" in kinds(actions, Tell)[0].text
    assert [each.worker for each in kinds(actions, Cancel)] == [new.worker]
    assert job.worker in {each.worker for each in world.state.jobs}
    assert len(world.state.jobs) == 3
    assert {each.id for each in finish(world.state)} >= set(world.queue)


@given(
    st.lists(
        st.tuples(st.frozensets(st.integers(1, 12)), st.booleans(), st.sampled_from((1.0, 3.0))),
        max_size=30,
    ),
    st.booleans(),
)
@num_examples(200)
def test_after_short_answers_no_job_is_forgotten_and_no_worker_lost(answers, are_connected):
    world = World(replace(LIMITS, max_losses=1_000_000))
    if are_connected:
        world.start()
    before = {job.worker for job in world.state.jobs} if are_connected else set()
    for lacking, is_deaf, seconds in answers:
        world.is_deaf = is_deaf
        world.step(seconds, lacks=set(map(str, lacking)))
        assert before <= {job.worker for job in world.state.jobs}
    world.is_deaf = False
    for _ in range(3):
        world.step()
        assert set(world.queue) <= ids(world)
    assert len(world.state.jobs) == 3


def many(number):
    """A world with so many readers at work, and no trainer."""
    found = World(Limits({"readers": Size(1, number)}, max_losses=5))
    found.backlog = {"readers": number}
    found.start()
    assert len(found.connected) == number
    return found


@given(st.integers(1, 60), st.integers(0, 60))
@num_examples(60)
def test_any_number_of_workers_lost_at_once_never_ends_a_run_in_which_work_is_done(lost, kept):
    world = many(lost + kept)
    for _ in range(3 * world.limits.max_losses):
        world.work += 1
        for job in world.state.jobs[:lost]:
            world.queue[job.id] = Seen("gone", "its node failed")
            world.connected.discard(job.worker)
        actions = world.step()
        assert not kinds(actions, GiveUp)
        assert len(kinds(actions, Submit)) == lost
        assert len(kinds(actions, Tell)) == lost
        world.start()


@given(st.integers(1, 60))
@num_examples(30)
def test_workers_that_are_lost_at_once_again_and_again_without_work_end_a_run(number):
    world = many(number)
    for _ in range(world.limits.max_losses):
        for job in world.state.jobs:
            world.queue[job.id] = Seen("gone", "its node failed")
        world.connected.clear()
        assert not kinds(world.step(), GiveUp)
        world.start()
    world.queue = {job.id: Seen("gone", "its node failed") for job in world.state.jobs}
    assert kinds(world.step(), GiveUp)


@pytest.mark.parametrize("are_others_at_work", [True, False])
def test_jobs_that_never_connect_end_a_run_unless_others_are_at_work(are_others_at_work):
    world = many(30)
    for job in world.state.jobs[18:]:
        world.lose(job, is_walltime=True)
    world.step()
    for _ in range(4 * world.limits.max_losses):  # a node on which no job can start
        world.work += are_others_at_work
        for job in world.state.jobs[18:]:
            world.queue[job.id] = Seen("gone", "failed")
        world.step()
        world.step()
    assert bool(world.state.given_up) is not are_others_at_work
    assert are_others_at_work or world.number < 60


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


def test_each_group_has_its_own_time_to_connect():
    world = World(replace(LIMITS, connects={"trainers": 1800.0}))
    world.step()
    world.step()
    world.queue = dict.fromkeys(world.queue, Seen("running"))
    world.step()
    assert len(kinds(world.step(LIMITS.connect + 1), Cancel)) == 2
    (trainer,) = [job for job in world.state.jobs if job.group == "trainers"]
    assert not kinds(world.step(1800 - LIMITS.connect - 2), Cancel)
    assert [each.worker for each in kinds(world.step(2), Cancel)] == [trainer.worker]


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
    assert world.state.num_losses == 0


def test_a_worker_that_has_done_its_time_is_replaced_and_is_no_loss(world):
    world.limits = replace(LIMITS, lifetimes={"readers": 100.0})
    world.step(100.0)
    first = world.state.jobs[0]
    assert first.group == "readers"
    actions = world.lose(first, "ended by itself")
    (told,) = kinds(actions, Tell)
    assert (told.is_warning, told.log) == (False, False)
    assert [each.group for each in kinds(actions, Submit)] == ["readers"]
    assert world.state.num_losses == 0
    world.step()
    early = world.state.jobs[-1]  # it has not lived
    assert kinds(world.lose(early, "ended by itself"), Tell)[0].is_warning
    assert world.state.num_losses == 1


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


def test_a_silent_queue_is_told_with_its_words_again_and_again_and_in_the_last_word(world):
    world.limits = replace(LIMITS, patience=3000.0)
    world.words = "squeue: Unable to contact slurm controller"
    world.connected.clear()
    told, ends = [], []
    for _ in range(310):
        actions = world.step(10.0, answers=False)
        told += [each.text for each in kinds(actions, Tell)]
        ends += kinds(actions, GiveUp)
    assert len(told) == 6
    assert told[0] == f"the batch system does not answer ({world.words}); it is asked again"
    assert told[1].startswith(f"the batch system has not answered for 600 s ({world.words})")
    (end,) = ends
    assert f"the batch system has not answered for 3010 s ({world.words})" in end.reason


def test_a_job_that_was_put_back_into_the_queue_is_told_and_pending(world):
    job = world.state.jobs[0]
    world.queue[job.id] = Seen("pending", "BeginTime")
    (told,) = kinds(world.step(), Tell)
    assert told.text == f"job {job.id} ({job.worker}) was put back into the queue (BeginTime)"
    assert (told.state, told.is_warning, told.log) == ("pending", True, False)
    assert world.step() == ()  # also while Dask has not missed the worker yet
    world.connected.discard(job.worker)
    assert world.step() == ()
    world.queue[job.id] = Seen("running")
    world.connected.add(job.worker)
    states = [each.state for _ in range(2) for each in kinds(world.step(), Tell)]
    assert states[-1] == "connected"
    assert world.state.num_losses == 0


@pytest.mark.parametrize("are_others_at_work", [True, False])
def test_a_job_that_is_put_back_again_and_again_without_a_worker_ends_a_run_without_work(
    are_others_at_work,
):
    world = World()
    world.step()
    world.step()
    told = []
    for _ in range(LIMITS.max_losses + 1):
        for state in ("running", "pending"):
            world.work += are_others_at_work
            world.queue["1"] = Seen(state)
            told += [each for each in kinds(world.step(), Tell) if "was put back" in each.text]
    assert bool(world.state.given_up) is not are_others_at_work
    assert len(told) == LIMITS.max_losses + 1
    assert all(each.log for each in told)


def test_no_time_counts_against_a_job_that_is_suspended(world):
    job = world.state.jobs[0]
    world.queue[job.id] = Seen("suspended", "Priority")
    world.connected.discard(job.worker)
    told = [each for _ in range(500) for each in kinds(world.step(), Tell)]
    assert [each.state for each in told] == ["suspended"]
    assert "has been suspended for 15 s (Priority)" in told[0].text
    world.queue[job.id] = Seen("running")
    assert [each.text for each in world.step()] == [f"job {job.id} ({job.worker}) goes on"]
    world.step(LIMITS.away - 2)
    world.connected.add(job.worker)
    assert not kinds(world.step(), Tell)
    assert job.worker in {each.worker for each in world.state.jobs}


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
@num_examples(400)
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
        given_up, refused, put_off = world.state.given_up, {*world.refused}, world.put_off
        actions = world.step(seconds, answers=what != "silence")
        after = {each.worker for each in world.state.jobs}
        texts = " ".join(each.text for each in kinds(actions, Tell))
        silent = {worker for worker in before - after if worker not in texts}
        assert silent <= refused | put_off
        assert not silent & refused or "refused a job" in texts
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


def test_a_site_that_takes_fewer_jobs_than_are_wanted_keeps_those_it_took(world):
    world.limits = replace(LIMITS, sizes={"readers": Size(2, 20), "trainers": Size(1, 1)})
    world.backlog, world.most = {"readers": 100}, 10
    tries = []
    for _ in range(5000):
        actions = world.step()
        assert not kinds(actions, GiveUp)
        assert not kinds(actions, Cancel)
        if world.refused:
            tries.append(world.now)
    assert len(world.state.jobs) == 10
    pauses = [later - earlier for earlier, later in pairwise(tries)]
    assert pauses == sorted(pauses)  # it asks less and less often
    assert pauses[0] < 10 < pauses[-1] <= world.limits.max_pause + 1
    world.most = 12
    for _ in range(int(world.limits.max_pause) + 2):
        world.step()
    assert len(world.state.jobs) == 12


def test_refused_jobs_of_one_step_count_once():
    world = World(replace(LIMITS, sizes={"readers": Size(9, 9)}))
    world.refuses, world.tries_all = "busy", True
    for _ in range(3):
        assert not kinds(world.step(), GiveUp)
    assert world.state.refusals["readers"].count <= 1


def test_each_group_has_its_minimum_where_not_all_are_accepted():
    world = World(replace(LIMITS, sizes={"readers": Size(1, 9), "trainers": Size(2, 2)}))
    world.backlog, world.most = {"readers": 100}, 4
    for _ in range(60):
        world.step()
    groups = [job.group for job in world.state.jobs if job.id]
    assert sorted(groups) == ["readers", "readers", "trainers", "trainers"]


def test_a_site_that_takes_no_jobs_any_more_ends_a_run_that_has_none(world):
    world.refuses = "your account has expired"
    for job in world.state.jobs:
        world.queue[job.id] = Seen("gone", "cancelled")
    world.connected.clear()
    ends = [each for _ in range(8000) for each in kinds(world.step(), GiveUp)]
    (end,) = ends
    assert f"refused jobs {LIMITS.max_later_refusals} times" in end.reason
    assert world.refuses in end.reason


def test_a_scheduler_that_does_not_answer_loses_no_job_and_is_told_once(world):
    before = world.state.jobs
    world.is_deaf = True
    seconds = 10 * int(LIMITS.connect)
    told = [each for _ in range(seconds) for each in kinds(world.step(), Tell)]
    assert [each.text for each in told] == ["Dask's scheduler does not answer; it is asked again"]
    lost = before[0]
    assert "left the queue (failed)" in kinds(world.lose(lost, "failed"), Tell)[0].text
    world.is_deaf = False
    replaced = world.step()
    assert [each.group for each in kinds(replaced, Submit)] == [lost.group]
    assert not kinds(replaced, Cancel)


def test_time_in_which_the_scheduler_is_silent_counts_against_no_worker():
    world = World()
    world.step()
    world.step()
    for job in world.state.jobs:
        world.queue[job.id] = Seen("running")
    world.step()
    world.is_deaf = True
    world.step(10 * LIMITS.connect)
    world.is_deaf = False
    assert not kinds(world.step(), Cancel)
    assert not kinds(world.step(LIMITS.connect - 1), Cancel)
    assert len(kinds(world.step(2), Cancel)) == 3


def test_a_scheduler_that_is_silent_beyond_patience_ends_the_run(world):
    world.limits = replace(LIMITS, patience=100.0)
    world.is_deaf = True
    ends = [each for _ in range(120) for each in kinds(world.step(), GiveUp)]
    assert [each.reason for each in ends] == ["Dask's scheduler has not answered for 101 s"]
    assert world.queue == {}


def test_a_job_that_was_ended_and_stays_is_ended_again_until_it_is_gone(world):
    job = world.state.jobs[0]
    world.ignores = {job.id}
    world.queue[job.id] = Seen("held", "why")
    assert kinds(world.step(), Cancel) == [Cancel(job.id, job.worker)]
    asked, told = [], []
    for _ in range(2 * int(LIMITS.again) + 5):
        actions = world.step()
        asked += kinds(actions, Cancel)
        told += [each.text for each in kinds(actions, Tell) if "ended again" in each.text]
        assert not kinds(actions, Gone)
    assert asked == [Cancel(job.id, job.worker)] * 2
    assert len(told) == 2
    assert Cancel(job.id, job.worker) in finish(world.state)
    del world.queue[job.id]
    assert world.step() == (Gone(job.id, job.worker),)
    assert world.state.leaving == ()


def test_a_job_whose_processes_are_being_ended_has_left(world):
    job = world.state.jobs[0]
    world.ignores = {job.id}
    world.queue[job.id] = Seen("held")
    world.step()
    world.queue[job.id] = Seen("running", is_ending=True)
    assert world.step() == (Gone(job.id, job.worker),)


def test_jobs_that_came_though_they_counted_as_refused_are_ended(world):
    world.strays = {"readers-run-77": "77"}
    world.queue["77"] = Seen("pending")
    assert kinds(world.step(), Cancel) == [Cancel("77", "readers-run-77")]
    assert [each.id for each in world.state.leaving] == ["77"]


def test_patience_with_trainers_does_not_pass_while_readers_work():
    world = World(replace(LIMITS, patience=100.0))
    world.step()
    world.step()
    for job in world.state.jobs:
        if job.group == "readers":
            world.queue[job.id] = Seen("running")
            world.connected.add(job.worker)
    for _ in range(1000):
        world.work += 1
        assert not kinds(world.step(), GiveUp)
    ends = [each for _ in range(120) for each in kinds(world.step(), GiveUp)]
    (end,) = ends
    assert end.reason.startswith("after 101 s there are 2 of at least 2 readers, 0 of at least 1 ")


@pytest.mark.parametrize(
    ("minimum", "maximum", "processes", "least", "most"),
    [(1, 10, 1, 1, 10), (1, 10, 4, 1, 2), (5, 10, 4, 2, 2), (2, 2, 2, 1, 1), (1, 2, 4, 1, 1)],
)
def test_sizes_count_workers_of_which_a_job_may_have_several(
    minimum, maximum, processes, least, most
):
    size = Size(minimum, maximum)
    assert (size.jobs(0, processes), size.jobs(1000, processes)) == (least, most)


def test_a_minimum_of_workers_is_met_by_jobs_with_several():
    sizes = {"readers": Size(4, 8), "trainers": Size(2, 2)}
    world = World(Limits(sizes, processes={"readers": 4}, patience=100.0))
    asked = kinds(world.step(), Submit)
    assert [each.group for each in asked] == ["readers", "trainers", "trainers"]
    world.step()
    for job in world.state.jobs:
        world.queue[job.id] = Seen("running")
        world.connected.add(job.worker)
    world.per_job = {"readers": 3}  # one of four has not come yet
    world.step()
    assert world.state.ready == {"trainers"}
    world.per_job = {"readers": 4}
    world.step()
    assert world.state.ready == {"readers", "trainers"}
