"""Jobs on real batch systems are seen, replaced and ended by their supervisor."""

import json
import logging
import os
import shlex
import signal
import subprocess
import sys
import time

import psutil
import pytest
import yaml
from distributed import Client
from services.processes import wait_until
from tokens import HOUR, token_of

from mlaas4hep_dask.cluster.batch.limits import Limits, Size
from mlaas4hep_dask.cluster.batch.supervisor import Supervisor, Workers
from mlaas4hep_dask.cluster.batch.views import Seen
from mlaas4hep_dask.cluster.places.batch import workers_now
from mlaas4hep_dask.cluster.settings import SETTINGS
from mlaas4hep_dask.cluster.sites import Carried, Script, job_script, load_site
from mlaas4hep_dask.cluster.systems.queue import RefusedError, require_commands
from mlaas4hep_dask.cluster.systems.registry import QUEUES
from mlaas4hep_dask.errors import ClusterError

pytestmark = [pytest.mark.batch, pytest.mark.timeout(280)]

OPTIONS = {
    "scheduler": {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"},
    "ports": [0],
    "security": None,
    "settings": SETTINGS,
}


def sleeping(folder, *directives):
    """A job of SLURM that does nothing for a long time."""
    lines = ["#!/bin/sh", *(f"#SBATCH {line}" for line in directives), "sleep 1000"]
    text = "\n".join(lines) + "\n"
    log = str(folder / "{job}.out")
    return Script(text, "sleeping", ("sbatch", f"--output={folder}/%j.out"), log)


@pytest.fixture
def scheduler():
    """The process of a scheduler of its own, and its address."""
    command = [sys.executable, "-m", "mlaas4hep_dask.cluster.batch.scheduler"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        process.stdin.write(json.dumps(OPTIONS) + "\n")
        process.stdin.flush()
        yield process, json.loads(process.stdout.readline())["address"]
        process.stdin.close()
        assert process.wait(30) == 0


def test_slurm_says_in_which_state_jobs_are(slurm, tmp_path):
    queue = QUEUES["slurm"]()
    running = queue.submit(sleeping(tmp_path), tmp_path / "a.sh")
    held = queue.submit(sleeping(tmp_path, "--hold"), tmp_path / "b.sh")
    large = queue.submit(sleeping(tmp_path, "--nodes=2", "--exclusive"), tmp_path / "c.sh")
    wait_until(lambda: queue.seen()[running].state == "running", "the first job runs")
    assert queue.seen()[held] == Seen("held", "JobHeldUser")
    wait_until(lambda: queue.seen()[large] == Seen("pending", "Resources"), "the third one waits")
    assert "Reason=Resources" in queue.explain(large)
    queue.cancel([running, held, large])
    wait_until(lambda: queue.seen()[running].state == "gone", "the first job is over")
    assert queue.seen()[running].reason.startswith("cancelled")
    with pytest.raises(RefusedError, match=r"sbatch: .*Requested node configuration is not avail"):
        queue.submit(sleeping(tmp_path, "--mem=900G"), tmp_path / "d.sh")


def test_a_missing_command_is_an_error_and_no_refusal(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    for system, command in (("slurm", "sbatch"), ("htcondor", "condor_submit")):
        with pytest.raises(ClusterError, match=f"there is no {command} here") as caught:
            require_commands(QUEUES[system]())
        assert not isinstance(caught.value, RefusedError)
        assert QUEUES[system]().seen() is None


def test_a_scheduler_that_does_not_answer_in_time_is_no_error_until_it_has_ended(scheduler):
    process, address = scheduler
    with Client(address) as client:
        assert workers_now(client, processes={}).names == {}
        process.send_signal(signal.SIGSTOP)
        try:
            assert workers_now(client, processes={}, seconds=1.0) is None
        finally:
            process.send_signal(signal.SIGCONT)
        wait_until(lambda: workers_now(client, processes={}) is not None, "it answers again")
        client.close()
        with pytest.raises(ClusterError, match="the scheduler has ended"):
            workers_now(client, processes={})


def workers_join_and_are_replaced(system, scheduler, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    queue, site = QUEUES[system](), load_site(system, system)
    _, address = scheduler
    logs = tmp_path / "logs"
    logs.mkdir()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}

    def script_of(group, worker):
        return job_script(
            site, group, scheduler_address=address, name=worker, logs=logs, environment=environment
        )

    with Client(address) as client:

        def look():
            workers = client.scheduler_info(n_workers=-1)["workers"]
            return Workers({worker["name"]: 1 for worker in workers.values()})

        limits = Limits({"readers": Size(2, 2)}, connect=100)
        with Supervisor(
            queue, script_of, look, limits=limits, folder=tmp_path, prefix="t", interval=0.5
        ) as supervisor:
            wait_until(
                lambda: len(look().names) == 2 or supervisor.failure,
                "workers are there",
                seconds=120,
            )
            assert not supervisor.failure
            assert sorted(look().names) == ["readers-t0", "readers-t1"]
            lost = next(job for job in supervisor.state.jobs if job.worker == "readers-t0")
            queue.cancel([lost.id])
            wait_until(lambda: "readers-t2" in look().names, "another is there", seconds=120)
            assert client.submit(os.getpid, workers="readers-t2").result(60)
            assert f"job {lost.id} (readers-t0) left the queue" in caplog.text
            assert supervisor.failure is None
        wait_until(
            lambda: all(seen.state == "gone" for seen in queue.seen().values()),
            "no job is left",
            seconds=60,
        )


def test_workers_on_slurm_join_and_are_replaced(slurm, scheduler, tmp_path, caplog):
    workers_join_and_are_replaced("slurm", scheduler, tmp_path, caplog)


@pytest.mark.nightly
def test_workers_on_htcondor_join_and_are_replaced(htcondor, scheduler, tmp_path, caplog):
    workers_join_and_are_replaced("htcondor", scheduler, tmp_path, caplog)


def test_refusals_end_a_supervisor_with_the_words_of_slurm(slurm, tmp_path):
    limits = Limits({"readers": Size(1, 1)}, pause=0.1)
    with Supervisor(
        QUEUES["slurm"](),
        lambda *_: sleeping(tmp_path, "--mem=900G"),
        lambda: Workers({}),
        limits=limits,
        folder=tmp_path,
        interval=0.2,
    ) as supervisor:
        wait_until(lambda: supervisor.failure, "it has given up")
    assert "refused jobs 3 times one after the other: sbatch: " in str(supervisor.failure)


def test_a_scheduler_ends_when_its_parent_was_killed(tmp_path):
    options = json.dumps(OPTIONS)
    (tmp_path / "parent.py").write_text(
        "import subprocess, sys\n"
        "command = [sys.executable, '-m', 'mlaas4hep_dask.cluster.batch.scheduler']\n"
        "child = subprocess.Popen(command, stdin=-1, text=True)\n"
        f"child.stdin.write({options!r} + '\\n')\n"
        "child.stdin.flush()\n"
        "child.wait()\n"
    )
    with subprocess.Popen(
        [sys.executable, tmp_path / "parent.py"], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert json.loads(parent.stdout.readline())["address"].startswith("tcp://127.0.0.1:")
        children = psutil.Process(parent.pid).children(recursive=True)
        assert children
        parent.kill()
        assert not psutil.wait_procs(children, timeout=30)[1]


def test_every_command_of_htcondor_is_told_on_which_machine_the_queue_is(htcondor, tmp_path):
    name = htcondor.run("condor_status", "-schedd", "-af", "Name").stdout.strip()
    site = load_site("infn-cnaf").document.jobs
    queue = QUEUES["htcondor"](("-name", name))
    text = "executable = /bin/sleep\narguments = 1000\nrequest_memory = 100\nqueue\n"
    assert site.submit_command_extra[::2] == ["-name", "-spool"]
    job = queue.submit(
        Script(text, "sleeping", ("condor_submit", "-name", name, "-spool"), None),
        tmp_path / "job.sub",
    )
    wait_until(lambda: queue.seen()[job].state == "running", "the job runs")
    assert job in queue.explain(job)
    elsewhere = QUEUES["htcondor"](("-name", "nowhere.example.org"))
    assert elsewhere.seen() is None
    assert elsewhere.explain(job) == ""
    elsewhere.cancel([job])
    assert queue.seen()[job].state == "running"
    queue.cancel([job])
    wait_until(lambda: job not in queue.seen(), "the job has left the queue")


ODD = """it's a "folder", 5% $(of) `them` #1"""


def submitted_with_odd_paths(system, scheduler, tmp_path, monkeypatch):
    """A job whose every path is odd: its worker comes, and tells what the job found."""
    monkeypatch.setenv("SECRET", "not for jobs")
    folder = tmp_path / ODD
    folder.mkdir()
    image = folder / "image"
    image.write_text('#!/bin/sh\nexec "$@"\n')
    own = ["if true; then # why", f"echo '# 100%' > {shlex.quote(f'{folder}/said')}", "fi"]
    own += [f"env > {shlex.quote(f'{folder}/env')} # all", "# done"]
    values = {"cores": 1, "memory": "1350 MiB", "local-directory": "${HOME}/scratch"}
    values |= {"log-directory": str(folder), "job-script-prologue": own}
    python = shlex.quote(sys.executable)
    container = {"image": "${HOME}/image", "command": "/bin/sh", "python": python}
    document = {
        "mlaas4hep": {"title": "odd", "base": system, "container": container},
        "jobqueue": {system: values},
    }
    file = tmp_path / "odd.yaml"
    file.write_text(yaml.safe_dump(document))
    environment = {**os.environ, "HOME": str(folder), "PYTHONPATH": os.pathsep.join(sys.path)}
    _, address = scheduler
    queue = QUEUES[system]()
    made = job_script(
        load_site(str(file)),
        "readers",
        scheduler_address=address,
        name="readers-0",
        environment=environment,
    )
    job = queue.submit(made, folder / "job")
    with Client(address) as client:
        wait_until(
            lambda: client.scheduler_info(n_workers=-1)["workers"],
            "the worker is there",
            seconds=120,
            log=folder,
        )
        (worker,) = client.scheduler_info(n_workers=-1)["workers"].values()
        assert worker["local_directory"].startswith(f"{folder}/scratch/")
    wait_until(made.log_of(job).exists, "the log is there")
    queue.cancel([job])
    assert (folder / "said").read_text() == "# 100%\n"
    found = (folder / "env").read_text()
    assert f"HOME={folder}\n" in found
    assert "SECRET" not in found


def test_a_job_of_slurm_has_odd_paths_and_no_variable_that_is_not_passed_on(
    slurm, scheduler, tmp_path, monkeypatch
):
    submitted_with_odd_paths("slurm", scheduler, tmp_path, monkeypatch)


def test_a_job_of_htcondor_has_odd_paths_and_no_variable_that_is_not_passed_on(
    htcondor, scheduler, tmp_path, monkeypatch
):
    submitted_with_odd_paths("htcondor", scheduler, tmp_path, monkeypatch)


def what_a_job_sees_of_a_token(system, tmp_path, **options):
    """The token and its rights, as a job tells them that has the copy of a run."""
    token = token_of(tmp_path, HOUR)
    said = tmp_path / "said"
    own = f'(cat "$BEARER_TOKEN_FILE"; stat -c " %a" "$BEARER_TOKEN_FILE") > {said}.new; '
    own += f"mv {said}.new {said}; exit"
    document = {
        "mlaas4hep": {"title": "t", "base": system, "proxy": "none", **options},
        "jobqueue": {system: {"job-script-prologue": [own]}},
    }
    (tmp_path / "ours.yaml").write_text(yaml.safe_dump(document))
    site = load_site(str(tmp_path / "ours.yaml"))
    environment = {**os.environ, "BEARER_TOKEN_FILE": str(token)}
    copies = Carried(site, tmp_path / "keys", environment).files
    token.unlink()  # no node sees it
    made = job_script(
        site,
        "readers",
        scheduler_address="tcp://127.0.0.1:8786",
        name="readers-0",
        logs=tmp_path,
        environment=environment,
        credentials=copies,
    )
    QUEUES[system]().submit(made, tmp_path / "job")
    wait_until(said.exists, "the job has spoken", seconds=120, log=tmp_path)
    return said.read_text() == f"{copies['token'].read_text()} 600\n"


def test_a_token_of_the_submitting_machine_reaches_a_job_of_slurm(slurm, tmp_path):
    assert what_a_job_sees_of_a_token("slurm", tmp_path)


def test_a_token_of_the_submitting_machine_reaches_a_job_of_htcondor(htcondor, tmp_path):
    assert what_a_job_sees_of_a_token("htcondor", tmp_path)


def test_a_token_is_transferred_by_htcondor_where_no_files_are_shared(htcondor, tmp_path):
    assert what_a_job_sees_of_a_token("htcondor", tmp_path, **{"shared-files": False})


def test_a_spooled_job_of_htcondor_that_has_ended_stays_for_an_hour(htcondor, tmp_path):
    own = load_site("infn-cnaf").document.jobs.job_extra_directives["leave_in_queue"]
    text = f"executable = /bin/true\nrequest_memory = 100\nleave_in_queue = {own}\nqueue\n"
    queue = QUEUES["htcondor"]()
    job = queue.submit(Script(text, "a", ("condor_submit", "-spool"), None), tmp_path / "job.sub")
    wait_until(lambda: queue.seen()[job] == Seen("gone", "ended by itself"), "it has ended")
    told = htcondor.run("condor_q", job, "-af:r", "LeaveJobInQueue").stdout
    assert told.split() == own.split()
    an_hour_ago = str(int(time.time()) - 3600)
    htcondor.run("condor_qedit", job, "EnteredCurrentStatus", an_hour_ago)
    wait_until(lambda: job not in queue.seen(), "the job has left the queue", seconds=120)
