"""What a driver that is dead has left behind is ended, by its scheduler and by the next driver."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace

import psutil
import pytest
import yaml
from queue_in_folder import command, commands_in, jobs
from services.processes import wait_until

from mlaas4hep_dask.cluster.batch import records
from mlaas4hep_dask.cluster.batch.leftovers import end_earlier
from mlaas4hep_dask.cluster.batch.records import Driver
from mlaas4hep_dask.cluster.settings import SETTINGS
from mlaas4hep_dask.cluster.systems.registry import QUEUES
from mlaas4hep_dask.journal import birth_of

pytestmark = pytest.mark.slow

OWN = Driver(socket.gethostname(), os.getpid(), birth_of(os.getpid()), "slurm", "ours", run="ab12")
DEAD = replace(OWN, birth="another")


@pytest.fixture
def place(tmp_path, monkeypatch):
    return commands_in(tmp_path, monkeypatch)


def write(clusters, place, driver, name="20260101-000000-ab12"):
    """The records and keys of a driver with two jobs, and a queue with one, and two of others."""
    folder = clusters / name
    keys = folder / "tls"
    keys.mkdir(parents=True)
    for secret in ("cert.pem", "key.pem", "token"):
        (keys / secret).write_text("secret")
    replace(driver, keys=str(keys)).write(folder)
    for number in (1, 2, 3):
        worker = f"readers-ab12-{number}"
        records.add(folder, {"event": "submitted", "worker": worker, "job": str(number)})
    (place / "job-1").write_text("PENDING|Resources|mlaas4hep-readers-ab12-1")
    (place / "job-3").write_text("RUNNING|None|an id that was given again")
    (place / "job-8").write_text("RUNNING|None|mlaas4hep-readers-ef56-1")
    return folder


def events(folder):
    lines = (folder / "jobs.jsonl").read_text().splitlines()
    told = [json.loads(line) for line in lines]
    return {(each["event"], each["job"]) for each in told if each["event"] != "submitted"}


def test_jobs_and_secrets_of_a_driver_that_died_are_ended_by_the_next(place, tmp_path, caplog):
    folder = write(tmp_path / "run.jobs", place, DEAD)
    end_earlier(tmp_path / "run.jobs")
    assert jobs(place) == {"an id that was given again", "mlaas4hep-readers-ef56-1"}
    assert not (folder / "tls").exists()
    assert caplog.messages == ["an earlier run left 1 jobs in the queue: 1; ended"]
    assert events(folder) == {("cancelled", "1"), ("gone", "2"), ("gone", "3")}
    (place.parent / "bin" / "squeue").unlink()  # it need not be asked again
    end_earlier(tmp_path / "run.jobs")
    assert len(caplog.messages) == 1


@pytest.mark.parametrize("driver", [OWN, replace(DEAD, host="elsewhere.example.org")])
def test_what_belongs_to_a_driver_that_may_live_is_left_alone(driver, place, tmp_path):
    folder = write(tmp_path / "run.jobs", place, driver)
    end_earlier(tmp_path / "run.jobs")
    assert len(jobs(place)) == 3
    assert (folder / "tls" / "key.pem").exists()


def test_secrets_of_a_driver_elsewhere_without_a_sign_of_life_for_a_day_are_removed(
    place, tmp_path
):
    folder = write(tmp_path / "run.jobs", place, replace(DEAD, host="elsewhere.example.org"))
    for name in (records.DRIVER, records.JOBS):
        age(folder / name, records.SILENCE + 60)
    records.beat(folder)  # as of a supervisor
    end_earlier(tmp_path / "run.jobs")
    assert (folder / "tls" / "key.pem").exists()
    age(folder / records.JOBS, records.SILENCE + 60)
    end_earlier(tmp_path / "run.jobs")
    assert not (folder / "tls").exists()
    assert len(jobs(place)) == 3  # it may be that they are of a driver that cannot write


def age(file, seconds):
    then = time.time() - seconds
    os.utime(file, (then, then))


def test_a_driver_elsewhere_is_dead_when_its_own_job_has_left_the_queue(place, tmp_path):
    elsewhere = replace(DEAD, host="node1.example.org", job="8")
    folder = write(tmp_path / "run.jobs", place, elsewhere)
    end_earlier(tmp_path / "run.jobs")
    assert len(jobs(place)) == 3
    (place / "job-8").unlink()
    end_earlier(tmp_path / "run.jobs")
    assert jobs(place) == {"an id that was given again"}
    assert not (folder / "tls").exists()


def test_a_job_without_an_answer_is_ended_by_the_next_driver_and_not_looked_for_again(
    place, tmp_path
):
    folder = write(tmp_path / "run.jobs", place, DEAD)
    for number in (1, 2, 3):
        records.add(folder, {"event": "gone", "job": str(number)})
    records.add(folder, {"event": "unanswered", "worker": "readers-ab12-9"})
    (place / "job-9").write_text("PENDING|None|mlaas4hep-readers-ab12-9")
    (place / "job-1").unlink()
    end_earlier(tmp_path / "run.jobs")
    assert jobs(place) == {"an id that was given again", "mlaas4hep-readers-ef56-1"}
    assert records.read(folder).unanswered == ()


@pytest.mark.parametrize("count", ["", "0", "1"])
def test_a_driver_whose_job_was_started_again_elsewhere_is_dead(
    count, place, tmp_path, monkeypatch
):
    elsewhere = replace(DEAD, host="node1.example.org", job="8")
    folder = write(tmp_path / "run.jobs", place, elsewhere)
    monkeypatch.setenv("SLURM_JOB_ID", "8")
    monkeypatch.setenv("SLURMD_NODENAME", "node2")
    monkeypatch.setenv("SLURM_RESTART_COUNT", count or "0")
    if not count:
        monkeypatch.delenv("SLURM_RESTART_COUNT")
    end_earlier(tmp_path / "run.jobs")
    is_dead = count == "1"
    assert ("mlaas4hep-readers-ab12-1" in jobs(place)) is not is_dead
    assert (folder / "tls").exists() is not is_dead


@pytest.mark.parametrize("answer", ["", "8|RUNNING|None|mlaas4hep-readers-ef56-1"])
def test_an_answer_without_any_job_of_a_driver_elsewhere_does_not_prove_it_dead(
    answer, place, tmp_path
):
    elsewhere = replace(DEAD, host="node1.example.org", job="77")
    folder = write(tmp_path / "run.jobs", place, elsewhere)
    command(place, "squeue", f"printf '%s' '{answer}'")
    end_earlier(tmp_path / "run.jobs")
    assert (folder / "tls" / "key.pem").exists()
    assert events(folder) == set()


def test_a_driver_in_a_job_of_an_array_is_found_by_the_number_in_its_environment(place, tmp_path):
    elsewhere = replace(DEAD, host="node1.example.org", job="124")
    folder = write(tmp_path / "run.jobs", place, elsewhere)
    said = (
        'case "$*" in *%A*) one=124;; *) one=123_4;; esac\n'
        'echo "1|PENDING|None|mlaas4hep-readers-ab12-1"\n'
    )
    command(place, "squeue", said + 'echo "$one|RUNNING|None|my-array"')
    end_earlier(tmp_path / "run.jobs")
    assert len(jobs(place)) == 3
    command(place, "squeue", said + 'echo "$one|FAILED|None|my-array"')
    end_earlier(tmp_path / "run.jobs")
    assert jobs(place) == {"an id that was given again", "mlaas4hep-readers-ef56-1"}
    assert not (folder / "tls").exists()


def test_a_driver_works_in_a_job_only_where_a_node_has_started_it(monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "124")  # as in a shell of salloc, whose job may be over
    monkeypatch.setenv("SLURM_JOB_NODELIST", "node1")
    monkeypatch.delenv("SLURMD_NODENAME", raising=False)
    own_job = QUEUES["slurm"].own_job
    assert own_job() == ""
    monkeypatch.setenv("SLURMD_NODENAME", "node1")
    assert own_job() == "124"


@pytest.mark.parametrize("is_orderly", [True, False])
def test_a_scheduler_ends_jobs_and_secrets_of_a_driver_without_a_goodbye(
    is_orderly, place, tmp_path
):
    folder = write(tmp_path / "run.jobs", place, OWN)
    driver = records.Driver.read(folder)
    (place / "job-9").write_text("PENDING|None|mlaas4hep-readers-ab12-9")  # not on record yet
    options = {
        "scheduler": {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"},
        "ports": [0],
        "security": None,
        "settings": SETTINGS,
        "driver": vars(driver),
        "folder": str(folder),
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "mlaas4hep_dask.cluster.batch.scheduler"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        process.stdin.write(json.dumps(options) + "\n")
        process.stdin.flush()
        assert process.stdout.readline()
        if is_orderly:
            process.stdin.write("goodbye\n")
        process.stdin.close()
        assert process.wait(60) == 0
    left = {"an id that was given again", "mlaas4hep-readers-ef56-1"}
    own = {"mlaas4hep-readers-ab12-1", "mlaas4hep-readers-ab12-9"}
    assert jobs(place) == (left | own if is_orderly else left)
    assert (folder / "tls").exists() == is_orderly


DRIVE = """
from pathlib import Path
from mlaas4hep_dask.cluster import connect
from mlaas4hep_dask.config import Cluster

if __name__ == "__main__":
    with connect(Cluster(address="slurm", site="ours.yaml"), ranks=0, jobs=Path("run.jobs")):
        pass
"""


@pytest.mark.batch
@pytest.mark.timeout(280)
def test_after_kill_9_of_the_driver_no_job_stays_in_the_queue_of_slurm_and_no_key(slurm, tmp_path):
    site = {
        "mlaas4hep": {
            "title": "two nodes for four jobs",
            "base": "slurm",
            "readers": {"minimum": 4, "maximum": 4},
        },
        "jobqueue": {"slurm": {"job-extra-directives": ["--exclusive"]}},
    }
    (tmp_path / "ours.yaml").write_text(yaml.safe_dump(site))
    (tmp_path / "drive.py").write_text(DRIVE)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    driver = subprocess.Popen([sys.executable, "drive.py"], cwd=tmp_path, env=environment)
    try:
        wait_until(
            lambda: (
                sorted(state for state, _ in slurm.jobs().values()).count("PENDING") == 2
                and len(slurm.jobs()) == 4
            ),
            "two jobs run, and two wait",
            seconds=120,
        )
        started = psutil.Process(driver.pid).children()
    finally:
        driver.send_signal(signal.SIGKILL)
        driver.wait()
    wait_until(lambda: not slurm.jobs(), "no job is left", seconds=60)
    (folder,) = (tmp_path / "run.jobs").iterdir()
    wait_until(lambda: not (folder / "tls").exists(), "no key is left")
    lines = (folder / "jobs.jsonl").read_text().splitlines()
    assert [json.loads(line)["event"] for line in lines].count("submitted") == 4
    assert not psutil.wait_procs(started, timeout=60)[1]
