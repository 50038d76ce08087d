"""What a run has left is ended and removed, on a batch system in a folder."""

import json
import socket

import pytest
from click.testing import CliRunner
from queue_in_folder import command, commands_in, jobs
from tokens import HOUR, token_of

from mlaas4hep_dask.cluster.batch.records import Driver
from mlaas4hep_dask.command import TROUBLE
from mlaas4hep_dask.config import Cluster
from mlaas4hep_dask.detached.begin import begin
from mlaas4hep_dask.detached.head import head_of
from mlaas4hep_dask.detached.leftovers import remove_left_secrets
from mlaas4hep_dask.errors import ClusterError
from mlaas4hep_dask.follow.cli import stop
from mlaas4hep_dask.follow.jobs import jobs_of
from mlaas4hep_dask.follow.stop import Times
from mlaas4hep_dask.follow.stop import stop as end
from mlaas4hep_dask.journal import Journal, Run
from mlaas4hep_dask.journal.read import JOURNAL

pytestmark = pytest.mark.slow
PAUSE = 2_000_000_000  # nanoseconds


@pytest.fixture
def place(tmp_path, monkeypatch):
    return commands_in(tmp_path, monkeypatch)


@pytest.fixture
def run(tmp_path):
    """A run whose process is gone, and that has two jobs on record."""
    folder = tmp_path / "run"
    journal = Journal()
    with journal.kept(folder / JOURNAL):
        journal.add(Run("t", "0.1.0", 2**30, socket.gethostname(), None, "another"))
    cluster = tmp_path / "run.jobs" / "20260101-000000-ab12"
    cluster.mkdir(parents=True)
    driver = {"host": socket.gethostname(), "pid": 2**30, "system": "slurm", "run": "ab12"}
    (cluster / "driver.json").write_text(json.dumps(driver) + "\n")
    with (cluster / "jobs.jsonl").open("w") as file:
        for number in (1, 2):
            worker = f"readers-ab12-{number}"
            record = {"event": "submitted", "group": "readers", "worker": worker, "job": number}
            file.write(json.dumps(record) + "\n")
    return folder


def test_a_job_with_an_id_that_was_given_again_is_not_ended(place, run):
    (place / "job-1").write_text("RUNNING|None|mlaas4hep-readers-ab12-1")
    (place / "job-2").write_text("RUNNING|None|of somebody else")
    assert [job.id for job in jobs_of(run).left] == ["1"]
    done = CliRunner().invoke(stop, [str(run)])
    assert "ending 1 jobs that it left in the queue: 1\n" in done.output
    assert jobs(place) == {"of somebody else"}
    assert (place / "cancelled").read_text() == "1\n"


def test_a_job_that_is_lost_on_record_and_in_the_queue_is_ended(place, run):
    (file,) = run.parent.glob("run.jobs/*/jobs.jsonl")
    with file.open("a") as records:
        record = {"event": "told", "worker": "readers-ab12-1", "job": "1", "state": "lost"}
        records.write(json.dumps(record) + "\n")
    (place / "job-1").write_text("RUNNING|None|mlaas4hep-readers-ab12-1")
    assert [job.id for job in jobs_of(run).left] == ["1"]
    assert end(run, times=Times(patience=60.0, again=1.0, look=0.1)) == 0
    assert jobs(place) == set()


def test_a_job_whose_submission_got_no_answer_is_found_by_its_name_and_ended(place, run):
    (file,) = run.parent.glob("run.jobs/*/jobs.jsonl")
    record = {"event": "unanswered", "group": "readers", "worker": "readers-ab12-3"}
    file.write_text(json.dumps(record) + "\n")
    (place / "job-3").write_text("PENDING|None|mlaas4hep-readers-ab12-3")
    (place / "job-4").write_text("PENDING|None|mlaas4hep-readers-ab1-23")
    (job,) = jobs_of(run).left
    assert (job.id, job.worker, job.group, job.state) == (
        "3",
        "readers-ab12-3",
        "readers",
        "pending",
    )
    done = CliRunner().invoke(stop, [str(run)])
    assert "nothing is left of it but its folder and" in done.output
    assert jobs(place) == {"mlaas4hep-readers-ab1-23"}


def test_a_queue_that_fails_while_jobs_end_does_not_end_jobs_of_others(place, run, capsys):
    (place / "job-2").write_text("RUNNING|None|of somebody else")
    (place / "job-1").write_text("RUNNING|None|mlaas4hep-readers-ab12-1")
    command(place, "scancel", f"cd '{place}'; echo \"$@\" >> cancelled; touch garbled")
    assert end(run, times=Times(patience=1.0, again=0.1, look=0.1)) == TROUBLE
    assert "jobs may be in the queue of slurm" in capsys.readouterr().err
    assert {"1"} == set((place / "cancelled").read_text().splitlines())


def test_a_queue_is_asked_seldom_while_jobs_end(place, run):
    # The job leaves the queue at the second question after it was ended.
    (place / "job-1").write_text("RUNNING|None|mlaas4hep-readers-ab12-1")
    command(place, "scancel", f"touch '{place}/ended'")
    command(
        place,
        "squeue",
        f"cd '{place}'; date +%s%N >> asked; test -e ended && echo >> after\n"
        'test -e after && test "$(wc -l < after)" -ge 2 || echo "1|$(cat job-1)"',
    )
    done = CliRunner().invoke(stop, [str(run)])
    assert "nothing is left of it but its folder and" in done.output
    _, first, second, *_ = map(int, (place / "asked").read_text().split())
    assert second - first > PAUSE


def test_keys_of_a_driver_in_a_head_on_another_machine_are_removed_when_that_is_gone(
    place, detach, tmp_path
):
    (own,) = detach()
    cluster = tmp_path / "run.jobs" / "20260101-000000-ab12"
    keys = cluster / "tls"
    keys.mkdir(parents=True)
    (keys / "key.pem").write_text("secret")
    driver = Driver("node1", 1, "another", "slurm", head=own.parent.name, keys=str(keys))
    driver.write(cluster)
    remove_left_secrets(tmp_path / "run")
    assert (keys / "key.pem").exists()
    (place / "job-1").unlink()
    remove_left_secrets(tmp_path / "run")
    assert not keys.exists()
    assert copies(tmp_path) == []


@pytest.fixture
def detach(place, tmp_path, monkeypatch):
    """Begins a run in a job, with a copy of a token; the folders with copies, from now on."""
    monkeypatch.setenv("BEARER_TOKEN_FILE", str(token_of(tmp_path, 30 * HOUR)))
    (tmp_path / "ours.yaml").write_text("mlaas4hep: {title: t, base: slurm}\n")
    site = Cluster(address="slurm", site=str(tmp_path / "ours.yaml"))

    def begun():
        begin("run", ["dataset.yaml"], cluster=site, output=str(tmp_path / "run"))
        return copies(tmp_path)

    return begun


def copies(folder):
    return sorted(folder.glob("run.jobs/*/credentials"))


def test_no_copy_of_a_token_stays_when_a_head_was_refused(place, detach, tmp_path):
    (place / "refusing").touch()
    with pytest.raises(ClusterError, match="as many as you may"):
        detach()
    assert list(tmp_path.glob("run.jobs/*-head-*"))
    assert head_of(tmp_path / "run") is None
    assert copies(tmp_path) == []


def test_a_head_whose_submission_got_no_answer_is_found_by_its_name_and_ended(
    place, detach, tmp_path
):
    (place / "lost").touch()
    with pytest.raises(ClusterError, match=r"timed out .* in the queue all the same, as head-"):
        detach()
    (name,) = jobs(place)
    head = head_of(tmp_path / "run")
    assert (head.job, head.is_alive(), head.log.endswith("-1.log")) == ("1", True, True)
    assert name.endswith(head.job_name)
    assert len(copies(tmp_path)) == 1  # it needs them
    done = CliRunner().invoke(stop, [str(tmp_path / "run")])
    assert "nothing is left of it but its folder" in done.output
    assert jobs(place) == set()
    assert copies(tmp_path) == []
    assert head_of(tmp_path / "run").is_alive() is False


def test_a_head_without_an_answer_is_waited_for_and_ended_when_it_comes(
    place, detach, tmp_path, capsys
):
    (place / "lost").touch()
    with pytest.raises(ClusterError, match="in the queue all the same"):
        detach()
    (place / "job-1").rename(place / "late")
    squeue = (place.parent / "bin" / "squeue").read_text().removeprefix("#!/bin/sh\n")
    comes = f"cd '{place}'; echo >> looks; test $(wc -l < looks) -gt 3 && mv late job-1 2>&-\n"
    command(place, "squeue", comes + squeue)
    assert end(tmp_path / "run", times=Times(look=0.1)) == 0
    assert "looking for a job of slurm, submitted on" in capsys.readouterr().out
    assert (place / "cancelled").read_text() == "1\n"
    assert jobs(place) == set()


def test_no_copy_of_a_token_stays_when_a_head_is_stopped_that_has_not_begun(
    place, detach, tmp_path
):
    assert len(detach()) == 1
    done = CliRunner().invoke(stop, [str(tmp_path / "run")])
    assert "nothing is left of it but its folder" in done.output
    assert jobs(place) == set()
    assert copies(tmp_path) == []


def test_a_head_that_ends_at_its_walltime_says_so_before_and_after_it_has_left(
    place, detach, tmp_path
):
    detach()
    job = place / "job-1"
    name = job.read_text().rpartition("|")[2]
    job.write_text(f"COMPLETING|TimeLimit|{name}")
    assert head_of(tmp_path / "run").reason() == "ending, reached its walltime, TimeLimit"
    job.write_text(f"TIMEOUT|TimeLimit|{name}")
    assert head_of(tmp_path / "run").reason() == "gone reached its walltime, TimeLimit"


def test_the_copy_of_a_head_that_died_is_removed_by_the_next_and_that_of_one_that_lives_stays(
    place, detach
):
    (first,) = detach()
    assert len(detach()) == 2
    (place / "job-1").write_text("RUNNING|None|an id that was given again")
    later = detach()
    assert first not in later
    assert len(later) == 2
