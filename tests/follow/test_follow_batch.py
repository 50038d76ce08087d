"""The verbs that follow a run, on real batch systems: detached, ended, lost, taken up, killed."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import main_job
import psutil
import pytest
import yaml
from services.processes import wait_until

from mlaas4hep_dask import journal

pytestmark = pytest.mark.timeout(580)
DEATH_TIMEOUT = 60  # seconds
EPOCHS = 20
REMOVED = 3  # JobStatus of HTCondor
# Training stands still while a file is there; what tries the loss before does not. The file is
# named backwards: one that the code names plainly is a part of it.
LOSS = """
import os, time
from torch.nn.functional import binary_cross_entropy_with_logits

calls, hold = 0, "{dloh}"[::-1]

def patient(outputs, targets):
    global calls
    calls += 1
    while calls > 100 and os.path.exists(hold):
        time.sleep(0.05)
    return binary_cross_entropy_with_logits(outputs, targets, reduction="none")
"""


def write(folder, system, epochs=EPOCHS):
    """Write a data set, and a site whose two nodes have room for head, reader and trainers."""
    main_job.write_config(folder)
    config = json.loads((folder / "dataset.yaml").read_text())
    config["training"] |= {"epochs": epochs, "loss": "loss.py:patient"}
    (folder / "loss.py").write_text(LOSS.format(dloh=str(folder / "hold")[::-1]))
    (folder / "dataset.yaml").write_text(json.dumps(config))
    site = {
        "mlaas4hep": {
            "title": "two nodes on one machine",
            "base": system,
            "readers": {"minimum": 1, "maximum": 1},
            "head": {"jobqueue": {"memory": "700 MiB"}},
        },
        "jobqueue": {system: {"memory": "1 GiB", "death-timeout": f"{DEATH_TIMEOUT} s"}},
    }
    (folder / "ours.yaml").write_text(yaml.safe_dump(site))


def words(verb, system):
    if verb != "run":
        return [verb, "run"]
    place = ["--cluster", system, "--site", "ours.yaml", "--output", "run"]
    return ["run", "dataset.yaml", *place]


def asked(folder, verb, *more, system=""):
    """A verb that has ended."""
    return subprocess.run(
        [sys.executable, "-m", "mlaas4hep_dask", *words(verb, system), *more],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def status(folder):
    done = asked(folder, "status", "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def wait_for_epoch(folder, number, is_alive):
    while True:
        is_there = (folder / "run" / "journal.jsonl").exists()
        if is_there and len(journal.read(folder / "run").epochs) >= number:
            return
        assert is_alive()
        time.sleep(0.2)  # polls for an epoch of another process


def groups(folder, **expected):
    """Wait until status tells how many workers of a group are in which state.

    Head, reader and trainers have to import what they need, on two cores that others use too.
    """

    def told():
        jobs = status(folder)["jobs"]
        return jobs is not None and expected.items() <= jobs["groups"].items()

    wait_until(told, f"status tells {expected}", seconds=150, pause=0.5)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """What the run finds here, without an interruption."""
    folder = tmp_path_factory.mktemp("here")
    write(folder, "slurm")
    main_job.run(folder, "local")
    return main_job.results(folder)


def is_detached_ended_lost_and_taken_up(folder, system, in_queue, lose):
    """The life of a run of which the machine where it was typed knows nothing any more."""
    write(folder, system)
    begun = asked(folder, "run", "--detach", system=system)
    assert begun.returncode == 0, begun.stderr
    job, again = begun.stdout.split()[1], asked(folder, "run", "--detach", system=system)
    assert begun.stdout.startswith(f"job {job} of {system}, submitted on ")
    assert again.returncode == 2
    assert f"was begun already: job {job} of {system}" in again.stderr
    wait_for_epoch(folder, 1, in_queue)
    (folder / "hold").touch()
    groups(folder, trainers={"connected": 2})
    told = status(folder)
    assert (told["state"], told["head"]["job"]) == ("running", job)
    assert told["jobs"]["is_asked"]
    logs = asked(folder, "logs", "--lines", "100").stdout
    assert f"(job {job} of {system}, submitted on " in logs
    assert "\nrunning dataset.yaml\n" in logs
    assert len(re.findall(r"^== .*, trainers-\S+, connected\), .* bytes$", logs, re.M)) == 2
    ended = asked(folder, "stop")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.splitlines()[-1].startswith("nothing is left of it but its folder and ")
    assert in_queue() == []
    told = status(folder)
    assert told["state"] in ("interrupted", "killed")
    num_epochs = len(told["epochs"])
    assert 1 <= num_epochs < EPOCHS

    begun = asked(folder, "run", "--detach", system=system)
    assert begun.returncode == 0, begun.stderr
    job = begun.stdout.split()[1]
    groups(folder, readers={"connected": 1}, trainers={"connected": 2})
    why = lose(job)
    wait_until(lambda: job not in in_queue(), "the head has ended")
    wait_until(lambda: not in_queue(), "no worker's job is left", seconds=2 * DEATH_TIMEOUT)
    # Its process may still end: the batch system waits for a while before it kills.
    ends = ("interrupted", "killed")
    wait_until(lambda: status(folder)["state"] in ends, "status tells the end", pause=0.5)
    told = status(folder)
    said = asked(folder, "status").stdout.splitlines()[0]
    assert f", with job {job} of {system}, submitted on " in said
    assert why in said
    assert said.endswith("; the same command takes the run up again")
    assert len(told["epochs"]) >= num_epochs

    (folder / "hold").unlink()
    begun = asked(folder, "run", "--detach", system=system)
    assert begun.returncode == 0, begun.stderr
    attached = asked(folder, "attach")
    assert attached.returncode == 0, attached.stdout + attached.stderr
    assert f"after epoch {len(told['epochs'])}" in attached.stdout
    assert f"epoch {EPOCHS}/{EPOCHS}" in attached.stdout
    assert "serve it: " in attached.stdout
    told = status(folder)
    assert (told["state"], len(told["epochs"]), told["exit_status"]) == ("complete", EPOCHS, 0)
    done = asked(folder, "stop")  # waits until the job has left the queue
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("nothing to end: complete")
    assert in_queue() == []
    assert list(folder.glob("core*")) == []
    return main_job.results(folder)


def test_a_run_in_a_job_of_slurm_is_ended_reaches_its_walltime_and_is_taken_up(
    slurm, tmp_path, undisturbed
):
    def lose(job):
        slurm.run("scontrol", "update", f"JobId={job}", "EndTime=now+10")
        wait_until(lambda: job not in slurm.jobs(), "the head has ended", seconds=120)
        return "(reached its walltime, TimeLimit)"

    def in_queue():
        return running_on(slurm)

    found = is_detached_ended_lost_and_taken_up(tmp_path, "slurm", in_queue, lose)
    assert found == undisturbed


@pytest.mark.nightly
def test_a_run_in_a_job_of_htcondor_is_ended_removed_and_taken_up(htcondor, tmp_path, undisturbed):
    def lose(job):
        htcondor.run("condor_rm", job)
        wait_until(lambda: job not in htcondor.jobs(), "the head has ended")
        return "(it has left the queue)"

    def in_queue():
        # Those that were ended are in the queue until their processes are gone.
        return [job for job, status in htcondor.jobs().items() if status != REMOVED]

    found = is_detached_ended_lost_and_taken_up(tmp_path, "htcondor", in_queue, lose)
    assert found == undisturbed


@pytest.mark.nightly
def test_a_run_of_slurm_whose_head_loses_its_node_is_taken_up(slurm, tmp_path, undisturbed):
    write(tmp_path, "slurm")
    begun = asked(tmp_path, "run", "--detach", system="slurm")
    assert begun.returncode == 0, begun.stderr
    head = begun.stdout.split()[1]
    wait_for_epoch(tmp_path, 1, slurm.jobs)
    (tmp_path / "hold").touch()
    groups(tmp_path, trainers={"connected": 2})
    slurm.kill_node(slurm.job(head)["NodeList"])
    (tmp_path / "hold").unlink()
    wait_until(lambda: head not in running_on(slurm), "SLURM misses the node", seconds=90)
    wait_until(lambda: not running_on(slurm), "no job is left", seconds=2 * DEATH_TIMEOUT)
    begun = asked(tmp_path, "run", "--detach", system="slurm")
    assert begun.returncode == 0, begun.stdout + begun.stderr

    def is_complete():
        told = status(tmp_path)
        return (told["state"], len(told["epochs"])) == ("complete", EPOCHS)

    wait_until(is_complete, "it is complete", seconds=180, pause=1.0)
    assert main_job.results(tmp_path) == undisturbed
    wait_until(lambda: not running_on(slurm), "no job is left")


def running_on(slurm):
    states = "--states=PENDING,RUNNING"  # those that were ended take a moment to be gone
    return slurm.run("squeue", "--noheader", "--format=%i", states).stdout.split()


@pytest.fixture
def temporary():
    """A temporary directory whose path is short enough for sockets, and that no other test uses."""
    with tempfile.TemporaryDirectory(prefix="f-", dir="/tmp") as folder:
        yield Path(folder)


def test_jobs_of_slurm_that_a_killed_run_has_left_are_told_and_ended(slurm, tmp_path, temporary):
    write(tmp_path, "slurm", epochs=500)
    with (tmp_path / "said").open("w") as said:
        run = subprocess.Popen(
            [sys.executable, "-m", "mlaas4hep_dask", *words("run", "slurm")],
            cwd=tmp_path,
            env={**os.environ, "TMPDIR": str(temporary)},
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
    started = [psutil.Process(run.pid)]
    try:
        wait_for_epoch(tmp_path, 1, lambda: run.poll() is None)
        (tmp_path / "hold").touch()
        groups(tmp_path, readers={"connected": 1}, trainers={"connected": 2})
        started += started[0].children(recursive=True)
        # As in a power cut: the scheduler would end the jobs, and workers whose connections are
        # closed would end by themselves.
        for process in started[1:]:
            process.suspend()
        run.kill()
        run.wait()
        for path in temporary.iterdir():  # a machine without power has no temporary files either
            shutil.rmtree(path)
        is_told_and_ended(tmp_path, slurm)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(run.pid, signal.SIGKILL)
        for process in started:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        run.wait()
        psutil.wait_procs(started, timeout=30)


def is_told_and_ended(folder, slurm):
    told = status(folder)
    assert told["state"] == "killed"
    assert told["jobs"]["groups"]["readers"] == {"connected": 1}  # still in the queue
    assert told["jobs"]["groups"]["trainers"] == {"connected": 2}
    assert len(running_on(slurm)) == 3
    ended = asked(folder, "stop")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("nothing to end: killed: ")
    assert "ending 3 jobs that it left in the queue" in ended.stdout
    assert running_on(slurm) == []
    assert status(folder)["jobs"]["groups"] == {"readers": {"gone": 1}, "trainers": {"gone": 2}}
