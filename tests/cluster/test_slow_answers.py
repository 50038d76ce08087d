"""A batch system whose commands are slow, garbled, missing or in vain, and a supervisor of jobs."""

import json
import os
import socket
import threading
from contextlib import contextmanager

import psutil
import pytest
from queue_in_folder import command, commands_in, jobs
from services.processes import wait_until

from mlaas4hep_dask.cluster.batch.head import running_head
from mlaas4hep_dask.cluster.batch.limits import Limits, Size
from mlaas4hep_dask.cluster.batch.records import Driver, read
from mlaas4hep_dask.cluster.batch.supervisor import END, LAST_COMMANDS, Supervisor, Workers
from mlaas4hep_dask.cluster.batch.views import Seen
from mlaas4hep_dask.cluster.sites import Script, load_site
from mlaas4hep_dask.cluster.systems.queue import RefusedError, UnansweredError
from mlaas4hep_dask.cluster.systems.registry import QUEUES
from mlaas4hep_dask.command.ends import GRACE
from mlaas4hep_dask.journal import birth_of

pytestmark = pytest.mark.slow


@pytest.fixture
def place(tmp_path, monkeypatch):
    return commands_in(tmp_path, monkeypatch)


def script_of(group, worker):
    return Script("#!/bin/sh\n", worker, ("sbatch",), None)


def records(folder):
    file = folder / "jobs.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def events(folder):
    return [each["event"] for each in records(folder)]


@contextmanager
def supervised(folder, look, queue=None, *, end=END, interval=0.05, **limits):
    given = {"pause": 0.1, "settle": 1.0, "again": 0.5, **limits}
    sizes = given.pop("sizes", {"readers": Size(2, 2)})
    with Supervisor(
        queue or QUEUES["slurm"](),
        script_of,
        look,
        limits=Limits(sizes, **given),
        folder=folder,
        prefix="r-",
        interval=interval,
        end=end,
    ) as supervisor:
        yield supervisor


def nobody():
    return Workers({})


def test_a_look_without_an_answer_is_told_once_and_tried_again(place, tmp_path, caplog):
    answers = [nobody(), nobody(), None, None, None]
    with supervised(tmp_path, lambda: answers.pop(0) if len(answers) > 1 else None) as supervisor:
        wait_until(lambda: len(answers) == 1 and len(jobs(place)) == 2, "both are submitted")
        wait_until(lambda: "scheduler does not answer" in caplog.text, "it is told")
        for _ in range(3):
            supervisor.look_once()
        assert supervisor.failure is None
        assert len(jobs(place)) == 2
    assert caplog.text.count("Dask's scheduler does not answer") == 1
    assert jobs(place) == set()


def test_output_that_cannot_be_understood_is_no_answer(place):
    (place / "garbled").touch()
    assert QUEUES["slurm"]().seen() is None
    for text in ("-- Schedd is busy\n[", "[]\nWARNING", '[{"ClusterId": 1}]', '{"a": 1}'):
        command(place, "condor_q", f"cat <<'END'\n{text}\nEND")
        assert QUEUES["htcondor"]().seen() is None
    command(place, "condor_q", "true")
    assert QUEUES["htcondor"]().seen() == {}


def test_why_there_is_no_answer_is_kept_in_the_words_of_the_batch_system(place):
    queue = QUEUES["slurm"]()
    (place / "garbled").touch()
    assert queue.seen() is None
    assert queue.said == "squeue: the answer cannot be read: slurm_load_jobs: something"
    command(place, "squeue", "echo 'slurm_load_jobs error: Unable to contact' >&2; exit 1")
    assert queue.seen() is None
    assert queue.said == "squeue: slurm_load_jobs error: Unable to contact"
    (place.parent / "bin" / "squeue").unlink()
    assert queue.seen() is None
    assert queue.said == "squeue cannot be run (No such file or directory)"


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("PENDING", "pending"),
        ("POWER_UP_NODE", "pending"),
        ("REQUEUED", "pending"),
        ("RUNNING", "running"),
        ("COMPLETING", "running"),
        ("SUSPENDED", "suspended"),
        ("STOPPED", "suspended"),
        ("REQUEUE_HOLD", "held"),
        ("RESV_DEL_HOLD", "held"),
        ("SPECIAL_EXIT", "held"),
        ("LAUNCH_FAILED", "held"),
        ("NODE_FAIL", "gone"),
    ],
)
def test_states_of_slurm_are_sorted_by_what_they_mean_for_a_worker(state, expected, place):
    (place / "job-1").write_text(f"{state}|None|readers-r-0")
    seen = QUEUES["slurm"]().seen()["1"]
    assert seen.state == expected
    assert seen.reason or expected not in ("held", "gone")


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("None", ""),
        ("NonZeroExitCode", "NonZeroExitCode"),
        ("TimeLimit", "reached its walltime, TimeLimit"),
    ],
)
def test_a_job_of_slurm_whose_processes_end_says_why(reason, words, place):
    (place / "job-1").write_text(f"COMPLETING|{reason}|readers-r-0")
    assert QUEUES["slurm"]().seen()["1"] == Seen("running", words, is_ending=True)


@pytest.mark.parametrize("status", range(1, 8))
def test_states_of_htcondor_are_sorted_by_what_they_mean_for_a_worker(status, place):
    command(place, "condor_q", f'echo \'[{{"ClusterId":1,"ProcId":0,"JobStatus":{status}}}]\'')
    states = ("pending", "running", "gone", "gone", "held", "running", "suspended")
    assert QUEUES["htcondor"]().seen()["1.0"].state == states[status - 1]


def test_a_name_with_line_breaks_leaves_the_answer_readable(place):
    (place / "job-1").write_text("RUNNING|None|readers-r-0")
    (place / "job-2").write_text("RUNNING|None|two\nlines|of another program")
    (place / "job-3").write_text("PENDING|Priority|readers-r-1")
    seen = QUEUES["slurm"]().seen()
    assert (seen["1"].name, seen["3"].name, seen["2"].state) == (
        "readers-r-0",
        "readers-r-1",
        "running",
    )


def test_that_a_job_is_pending_is_told_with_the_reason_of_the_batch_system(place, tmp_path, caplog):
    sbatch = place.parent / "bin" / "sbatch"
    sbatch.write_text(sbatch.read_text().replace("RUNNING|None", "PENDING|QOSMaxJobsPerUserLimit"))
    command(place, "scontrol", "echo JobState=PENDING Reason=QOSMaxJobsPerUserLimit Partition=a")
    with supervised(tmp_path, nobody, word=0.1):
        wait_until(lambda: "has been pending" in caplog.text, "it is told")
    (told, *_) = [each["text"] for each in records(tmp_path) if each.get("state") == "pending"]
    first, second = told.splitlines()
    assert first.endswith(" s (QOSMaxJobsPerUserLimit)")
    assert second == "JobState=PENDING Reason=QOSMaxJobsPerUserLimit Partition=a"


def test_what_keeps_a_job_from_being_submitted_is_a_refusal(place, tmp_path):
    queue, script = QUEUES["slurm"](), script_of("readers", "readers-1")
    with pytest.raises(RefusedError, match=r"away.a\.sh cannot be written \(No such file or dir"):
        queue.submit(script, tmp_path / "away" / "a.sh")
    (place.parent / "bin" / "sbatch").unlink()
    with pytest.raises(RefusedError, match=r"sbatch cannot be run \(No such file or directory\)"):
        queue.submit(script, tmp_path / "a.sh")


def test_a_command_that_is_missing_for_a_while_ends_no_run(place, tmp_path):
    sbatch = place.parent / "bin" / "sbatch"
    sbatch.rename(sbatch.with_name("away"))
    with supervised(tmp_path, nobody) as supervisor:
        wait_until(lambda: "refused" in events(tmp_path), "it is missed")
        sbatch.with_name("away").rename(sbatch)
        wait_until(lambda: len(jobs(place)) == 2, "both are submitted")
        assert supervisor.failure is None


def test_after_a_refusal_no_other_job_is_tried_in_the_same_step(place, tmp_path):
    looks = []

    def look():
        looks.append(1)
        return nobody()

    (place / "refusing").touch()
    with supervised(tmp_path, look, sizes={"readers": Size(9, 9)}, pause=1_000.0):
        wait_until(lambda: "refused" in events(tmp_path), "one is refused")
        number = len(looks)
        wait_until(lambda: len(looks) > number + 10, "it has looked on")
        assert events(tmp_path).count("refused") == 1
        assert len((place / "asked").read_text().splitlines()) == 1


def test_a_submission_without_an_answer_is_found_in_the_queue_by_its_name(place, tmp_path):
    (place / "lost").touch()
    with pytest.raises(UnansweredError, match="sbatch: sbatch: error: Socket timed out"):
        QUEUES["slurm"]().submit(script_of("readers", "other"), tmp_path / "other.sh")
    with supervised(tmp_path, nobody) as supervisor:
        wait_until(lambda: len(supervisor.state.jobs) == 2, "jobs are wanted")
        wait_until(lambda: all(job.id for job in supervisor.state.jobs), "they have ids")
        assert "refused" not in events(tmp_path)
        assert len(jobs(place)) == 3
    assert jobs(place) == {"other"}


def test_a_submission_without_an_answer_that_never_comes_is_refused(place, tmp_path):
    command(place, "sbatch", "echo 'Socket timed out' >&2; exit 1")
    with supervised(tmp_path, nobody, settle=0.2) as supervisor:
        wait_until(lambda: supervisor.failure, "it gives up")
    assert "refused jobs 3 times one after the other: sbatch: Socket timed out" in str(
        supervisor.failure
    )


def test_after_short_answers_all_jobs_are_known_and_the_records_agree(place, tmp_path):
    sbatch = place.parent / "bin" / "sbatch"
    sbatch.write_text(sbatch.read_text().replace("RUNNING|None", "PENDING|Priority"))
    with supervised(tmp_path, nobody, absent=0.1, max_losses=10_000) as supervisor:
        wait_until(lambda: len(jobs(place)) == 2, "both are submitted")
        squeue = (place.parent / "bin" / "squeue").read_text()
        command(place, "squeue", "exit 0")
        wait_until(lambda: len(jobs(place)) >= 4, "others are submitted")
        (place.parent / "bin" / "squeue").write_text(squeue)
        wait_until(lambda: len(jobs(place)) == 2, "those that are too many are ended")

        def agree():
            left = {job.worker for job in read(tmp_path).left}
            return left == {job.worker for job in supervisor.state.jobs} == jobs(place)

        wait_until(agree, "state, records and queue agree")
    assert jobs(place) == set()
    assert read(tmp_path).left == []


def test_at_the_end_what_has_the_run_in_its_name_is_ended_too(place, tmp_path):
    with supervised(tmp_path, nobody) as supervisor:
        wait_until(lambda: len(jobs(place)) == 2, "both are submitted")
        wait_until(lambda: all(job.id for job in supervisor.state.jobs), "they have ids")
        (place / "job-77").write_text("RUNNING|None|readers-r-77")
        (place / "job-78").write_text("RUNNING|None|readers-s-1")
    assert jobs(place) == {"readers-s-1"}


def test_a_job_that_does_not_end_is_ended_again_and_recorded_as_it_is(place, tmp_path):
    with supervised(tmp_path, nobody) as supervisor:
        wait_until(lambda: len(supervisor.state.jobs) == 2, "jobs are wanted")
        wait_until(lambda: all(job.id for job in supervisor.state.jobs), "they have ids")
        (place / "deaf").touch()
        job = supervisor.state.jobs[0]
        held = place / f"job-{job.id}"
        held.write_text(f"PENDING|JobHeldUser|{job.worker}")
        wait_until(lambda: events(tmp_path).count("not cancelled") > 1, "it was tried twice")
        (failed, *_) = [each for each in records(tmp_path) if each["event"] == "not cancelled"]
        assert (failed["job"], failed["worker"]) == (job.id, job.worker)
        assert "Unable to contact slurm controller" in failed["text"]
        assert held.exists()
        (place / "deaf").unlink()
        wait_until(lambda: not held.exists(), "it is ended")
        wait_until(lambda: "gone" in events(tmp_path), "it is seen off")


def test_at_the_end_a_command_that_hangs_is_cut_and_all_jobs_are_ended_in_one_command(
    place, tmp_path
):
    with supervised(tmp_path, nobody, sizes={"readers": Size(3, 9)}) as supervisor:
        wait_until(lambda: len(jobs(place)) == 3, "three are there")
        wait_until(lambda: all(job.id for job in supervisor.state.jobs), "all have ids")
        (place / "slow").touch()
        (place / "job-1").unlink()
        wait_until(lambda: len((place / "asked").read_text().splitlines()) == 4, "sbatch hangs")
    assert jobs(place) == set()  # also the one that sbatch did not tell of
    first, *_ = (place / "cancelled").read_text().splitlines()
    assert sorted(first.split()) == ["2", "3"]


def test_a_submission_without_an_answer_at_the_end_is_told_and_ended_from_the_scheduler(
    place, tmp_path, caplog
):
    (tmp_path / "ours.yaml").write_text(
        "mlaas4hep: {title: t, base: slurm}\n"
        "jobqueue: {slurm: {scheduler-options: {host: 127.0.0.1}}}\n"
    )
    site = load_site(str(tmp_path / "ours.yaml"))
    driver = Driver(socket.gethostname(), os.getpid(), birth_of(os.getpid()), "slurm", run="r")
    squeue = (place.parent / "bin" / "squeue").read_text()
    (place / "slow").touch()
    with running_head(site, None, tmp_path / "log", driver, tmp_path, close_timeout=1000.0):
        started = psutil.Process().children()
        with supervised(tmp_path, nobody, sizes={"readers": Size(1, 1)}, end=1.0):
            wait_until((place / "job-1").exists, "it is submitted")
            command(place, "squeue", "exec sleep 1000")
        assert jobs(place) == {"readers-r-0"}
        assert "1 jobs were submitted without an answer, and may come" in caplog.text
        assert caplog.messages[-1].endswith("they are looked for: readers-r-0")
        assert read(tmp_path).unanswered == ("readers-r-0",)
        (place.parent / "bin" / "squeue").write_text(squeue)
        scheduler = next(each for each in started if "batch.scheduler" in str(each.cmdline()))
    assert scheduler.status() != psutil.STATUS_ZOMBIE  # it goes on alone
    wait_until(lambda: not jobs(place), "the scheduler has ended it")
    psutil.wait_procs([scheduler], timeout=120)
    assert not scheduler.is_running()
    assert read(tmp_path).unanswered == ()


def test_after_the_end_nothing_is_submitted(place, tmp_path):
    is_wanted, is_looking, is_over = threading.Event(), threading.Event(), threading.Event()

    class Hurried(QUEUES["slurm"]):
        def hurry(self, seconds):
            is_over.set()
            super().hurry(seconds)

    def look():
        if not is_wanted.is_set():
            return nobody()
        is_looking.set()
        assert is_over.wait(60)
        return Workers({}, backlog={"readers": 100})

    with supervised(tmp_path, look, Hurried(), sizes={"readers": Size(1, 9)}):
        wait_until(lambda: (place / "asked").exists(), "one is submitted")
        is_wanted.set()
        assert is_looking.wait(60)
    assert len((place / "asked").read_text().splitlines()) == 1


def test_what_was_not_submitted_before_the_end_never_is(place, tmp_path):
    (place / "busy").touch()
    with supervised(tmp_path, nobody, sizes={"readers": Size(20, 20)}):
        wait_until(lambda: (place / "asked").exists(), "one is submitted")
    assert len((place / "asked").read_text().splitlines()) < 20
    assert jobs(place) == set()


def test_the_end_fits_into_the_time_that_a_command_has_after_an_interrupt():
    # One command may begin just before the deadline, and another after it.
    assert END + LAST_COMMANDS < GRACE


def test_jobs_that_cannot_be_ended_are_told_with_the_command(place, tmp_path, caplog):
    with supervised(tmp_path, nobody, sizes={"readers": Size(1, 1)}, end=1.0):
        wait_until(lambda: len(jobs(place)) == 1, "it is there")
        (place / "deaf").touch()
    assert "1 jobs may be in the queue; to end them:\n  scancel 1" in caplog.text
    assert QUEUES["slurm"]().seen() == {"1": Seen("running")}


def test_a_queue_that_is_seldom_asked_is_asked_when_a_worker_has_left(place, tmp_path):
    looks = []

    def look():
        looks.append(jobs(place))
        return Workers(dict.fromkeys(looks[-1], 1))

    with supervised(tmp_path, look, interval=10_000):
        wait_until(lambda: looks and len(looks[-1]) == 2, "both are there")
        (place / "job-1").unlink()
        wait_until(lambda: len(jobs(place)) == 2, "another is there")
    assert events(tmp_path).count("submitted") == 3
