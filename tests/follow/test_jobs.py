import json
import os

import pytest
from click.testing import CliRunner

from mlaas4hep_dask.detached.head import newest
from mlaas4hep_dask.errors import RecordError
from mlaas4hep_dask.follow.cli import logs
from mlaas4hep_dask.follow.jobs import cancel_command, jobs_of
from mlaas4hep_dask.follow.logs import MAX_LOGS, chosen, logs_of, show
from mlaas4hep_dask.follow.page import as_json, page
from mlaas4hep_dask.follow.standing import look
from mlaas4hep_dask.journal import End, Journal, Run
from mlaas4hep_dask.journal.read import JOURNAL

DRIVER = {"host": "login.example.org", "pid": 7, "system": "htcondor", "site": "ours"}
RECORDS = [
    {"event": "submitted", "group": "readers", "worker": "readers-a-0", "job": "1.0"},
    {"event": "submitted", "group": "readers", "worker": "readers-a-1", "job": "2.0"},
    {"event": "submitted", "group": "readers", "worker": "readers-a-2", "job": "3.0"},
    {"event": "submitted", "group": "trainers", "worker": "trainers-a-3", "job": "4.0"},
    {"event": "refused", "group": "trainers", "worker": "trainers-a-4", "text": "no such queue"},
    {"event": "told", "worker": "readers-a-0", "job": "1.0", "state": "running", "text": "runs"},
    {"event": "told", "worker": "readers-a-0", "job": "1.0", "state": "connected", "text": "is"},
    {"event": "told", "worker": "readers-a-1", "job": "2.0", "state": "lost", "text": "left"},
    {"event": "cancelled", "worker": "readers-a-1", "job": "2.0"},
    {
        "event": "told",
        "worker": "trainers-a-3",
        "job": "4.0",
        "state": "pending",
        "text": "job 4.0 (trainers-a-3) has been pending for 15 s (no match)\nanalysis",
    },
    {"event": "cancelled", "worker": "readers-a-2", "job": "3.0"},
    {"event": "gave up", "text": "after 4 s there are 0 of at least 1 trainers"},
]


@pytest.fixture
def run(tmp_path):
    """A run elsewhere with four jobs and their logs, and an earlier cluster."""
    folder = tmp_path / "run"
    journal = Journal()
    with journal.kept(folder / JOURNAL):
        journal.add(Run("t", "0.1.0", 7, "login.example.org", None))
    for day, name in enumerate(("20260101-000000-b", "20260102-000000-a")):
        cluster = tmp_path / "run.jobs" / name
        (cluster / "logs").mkdir(parents=True)
        (cluster / "driver.json").write_text(json.dumps(DRIVER) + "\n")
        os.utime(cluster / "driver.json", (day, day))
    lines = []
    for number, record in enumerate(RECORDS):
        if record["event"] == "submitted":
            log = cluster / "logs" / f"{record['worker']}.log"
            log.write_text("".join(f"{record['worker']} line {n}\n" for n in range(30)))
            record = {**record, "log": str(log)}
        lines.append(json.dumps({"time": 1.0 + number, **record}) + "\n")
    (cluster / "jobs.jsonl").write_text("".join(lines) + '{"time": 3.0, "event": "submi')
    (cluster / "logs" / "scheduler.log").write_text("scheduler line\n")
    return folder


def test_jobs_are_counted_by_group_and_state_with_the_words_of_the_batch_system(run):
    jobs = jobs_of(run)
    assert (jobs.driver.system, jobs.driver.site) == ("htcondor", "ours")
    assert jobs.driver.host == "login.example.org"
    assert [job.state for job in jobs.records.jobs] == ["connected", "lost", "cancelled", "pending"]
    assert [job.id for job in jobs.left] == ["1.0", "4.0"]
    assert not jobs.is_asked  # a pool has a queue on every machine, with ids of its own
    text = page(look(run), jobs, look(run).sign)
    assert "jobs of htcondor, site ours, as the records tell" in text
    assert "  readers: 1 connected, 1 lost, 1 cancelled" in text
    assert "  trainers: 1 pending" in text
    assert "  1 refused" in text
    assert "  1 pending: job 4.0 (trainers-a-3) has been pending for 15 s (no match)" in text
    assert "  after 4 s there are 0 of at least 1 trainers" in text
    told = as_json(look(run), jobs)["jobs"]
    assert told["groups"]["readers"] == {"connected": 1, "lost": 1, "cancelled": 1}


def test_a_job_that_could_not_be_cancelled_is_not_over_until_it_is_gone(run):
    (cluster,) = run.parent.glob("run.jobs/*-a")

    def add(event, job):
        with (cluster / "jobs.jsonl").open("a") as file:
            file.write(json.dumps({"event": event, "job": job}) + "\n")

    with (cluster / "jobs.jsonl").open("a") as file:
        file.write("\n")  # after a line that was cut
    for job in ("1.0", "2.0", "4.0"):  # connected, lost and pending
        add("not cancelled", job)
    states = [job.state for job in jobs_of(run).records.jobs]
    assert states == [*["leaving"] * 2, "cancelled", "leaving"]
    for job in ("1.0", "2.0"):
        add("gone", job)
    add("cancelled", "4.0")
    states = [job.state for job in jobs_of(run).records.jobs]
    assert states == ["gone", "lost", "cancelled", "cancelled"]
    assert jobs_of(run).left == []


def test_jobs_that_an_earlier_cluster_of_a_run_has_left_are_told(run):
    (cluster,) = run.parent.glob("run.jobs/*-b")
    assert jobs_of(run).earlier == ()
    (cluster / "jobs.jsonl").write_text(json.dumps(RECORDS[0] | {"job": "77.0"}) + "\n")
    (earlier,) = jobs_of(run).earlier
    assert [job.id for job in earlier.left] == ["77.0"]
    text = page(look(run), jobs_of(run), look(run).sign)
    assert "  of 20260101-000000-b 1 are left, as the records tell: 77.0" in text
    assert [job["id"] for job in as_json(look(run), jobs_of(run))["jobs"]["earlier"]] == ["77.0"]


def test_a_run_without_batch_jobs_has_none_and_says_where_messages_stand(tmp_path):
    journal = Journal()
    with journal.kept(tmp_path / "run" / JOURNAL):
        journal.add(Run("t", "0.1.0", 7, "here", None))
    assert jobs_of(tmp_path / "run") is None
    done = CliRunner().invoke(logs, [str(tmp_path / "run")])
    assert done.output.startswith("no logs: the workers of this run are no batch jobs")
    assert str(tmp_path / "run" / JOURNAL) in done.output


def test_logs_end_with_their_last_lines_and_are_chosen_by_job_worker_or_group(run):
    found = logs_of(run)
    assert len(found) == 5
    assert [log.worker for log in chosen(found, ["4.0"], run)] == ["trainers-a-3"]
    assert [log.worker for log in chosen(found, ["readers-a-1"], run)] == ["readers-a-1"]
    assert len(chosen(found, ["readers", "readers-a-0"], run)) == 3
    assert [log.worker for log in chosen(found, ["scheduler"], run)] == ["scheduler"]
    with pytest.raises(RecordError, match="'trainer-a-3'; did you mean 'trainers-a-3'"):
        chosen(found, ["trainer-a-3"], run)
    done = CliRunner().invoke(logs, [str(run), "--job", "4.0", "--lines", "2"])
    head, *lines = done.output.splitlines()
    size = (found[-1].file.parent / "trainers-a-3.log").stat().st_size
    assert head.endswith(f"trainers-a-3.log (job 4.0, trainers-a-3, pending), {size} bytes")
    assert lines == ["trainers-a-3 line 28", "trainers-a-3 line 29"]
    done = CliRunner().invoke(logs, [str(run)])
    assert done.output.count("== ") == 5
    assert "scheduler line" in done.output


def test_of_many_logs_the_last_are_shown_and_the_others_counted(run):
    (cluster,) = run.parent.glob("run.jobs/*-a")
    for number in range(MAX_LOGS):
        (cluster / "logs" / f"more-{number}.log").write_bytes(b"\xff\n" * 3)
    done = CliRunner().invoke(logs, [str(run), "--lines", "1"])
    assert done.output.startswith("(5 older logs in ")
    assert done.output.count("== ") == MAX_LOGS


def test_logs_are_followed_until_the_run_ends(run, capsys):
    (cluster,) = run.parent.glob("run.jobs/*-a")
    log = cluster / "logs" / "trainers-a-3.log"
    journal = run / JOURNAL
    ended = journal.read_bytes()
    journal.write_bytes(ended[: ended.index(b"\n") + 1])  # as long as it works
    lines = log.read_text()
    written = [f"{lines}half", f"{lines}half line\n"]

    def work(seconds):
        if written:
            log.write_text(written.pop(0))
        else:
            journal.write_bytes(ended)

    show(run, ["trainers"], lines=1, follow=True, wait=work)
    assert capsys.readouterr().out.splitlines()[1:] == [
        "trainers-a-3 line 29",
        "trainers-a-3: half line",
    ]
    assert End("complete") in look(run).records
    done = CliRunner().invoke(logs, [str(run), "--job", "trainers", "--lines", "1", "--follow"])
    assert done.exit_code == 0, done.output
    assert done.output.splitlines()[1:] == ["half line"]  # of a run that has ended


def test_jobs_of_a_queue_on_another_machine_are_ended_there(run):
    driver = {**DRIVER, "options": ["-name", "queue.example.org"]}
    (newest(run, "driver.json") / "driver.json").write_text(json.dumps(driver) + "\n")
    jobs = jobs_of(run)
    told = cancel_command(jobs.driver.system, [job.id for job in jobs.left], jobs.driver.options)
    assert told.startswith("condor_rm -name queue.example.org ")
