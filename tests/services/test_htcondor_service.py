"""The HTCondor pool that tests start is a real one: jobs run on its nodes, and fail as anywhere."""

import subprocess
from pathlib import Path

import psutil
import pytest
from conftest import NODES

from services.htcondor import HTCondor
from services.processes import wait_until

pytestmark = pytest.mark.batch

IDLE, RUNNING, REMOVED, COMPLETED, HELD = 1, 2, 3, 4, 5  # JobStatus
WHOLE = {"request_cpus": NODES["cpus"]}  # of a node, so that two jobs have two nodes


def submitted(htcondor, script, folder, **keys):
    """The number of a job that runs a line of shell; what it prints is in NUMBER.out."""
    (folder / "script").write_text(script)
    description = {
        "executable": "/bin/sh",
        "arguments": f"{folder}/script",
        "output": f"{folder}/$(ClusterId).0.out",
        "log": f"{folder}/log",
        "request_memory": "100MB",
        "request_disk": "1MB",
        **keys,
    }
    lines = [f"{key} = {value}\n" for key, value in description.items()]
    return htcondor.submit("".join(lines) + "queue\n")


def wait_for(htcondor, number, status, seconds=60):
    def is_so():
        return htcondor.job(number)["JobStatus"] == status

    wait_until(is_so, f"job {number} has status {status}", seconds=seconds)


def node_of(job):
    """The name of the node, of slot1_2@n1@127-0-0-1.private.test."""
    return job.get("RemoteHost", job.get("LastRemoteHost")).split("@")[1]


def test_jobs_run_on_both_nodes_at_the_same_time(htcondor, tmp_path):
    both = f"[ -e {tmp_path}/1 ] && [ -e {tmp_path}/2 ]"
    numbers = []
    for name in "12":
        script = f"touch {tmp_path}/{name}; until {both}; do sleep 0.1; done; hostname"
        keys = {**WHOLE, "arguments": f"{tmp_path}/{name}.sh"}
        (tmp_path / f"{name}.sh").write_text(script)
        numbers.append(submitted(htcondor, script, tmp_path, **keys))
    for number in numbers:
        wait_for(htcondor, number, COMPLETED)
    assert {node_of(htcondor.job(number)) for number in numbers} == set(htcondor.nodes)
    name = subprocess.run(["hostname"], capture_output=True, text=True).stdout
    assert [(tmp_path / f"{number}.out").read_text() for number in numbers] == [name, name]


def test_a_removed_job_ends_with_its_processes(htcondor, tmp_path):
    number = submitted(htcondor, f"touch {tmp_path}/there; sleep 1000", tmp_path)
    wait_until((tmp_path / "there").exists, "the job runs")
    htcondor.run("condor_rm", number)
    wait_for(htcondor, number, REMOVED)
    wait_until(
        lambda: not [one for one in htcondor.processes() if one.name() == "sleep"],
        "the job's processes have ended",
    )


def test_a_job_over_its_memory_is_held_and_says_why(htcondor, tmp_path):
    script = "python3 -c 'data = bytearray(300_000_000); import time; time.sleep(1000)'"
    number = submitted(htcondor, script, tmp_path)
    wait_for(htcondor, number, HELD)
    assert htcondor.job(number)["HoldReason"] == "the job used more memory than it requested"
    htcondor.clear()


def test_a_held_job_waits_and_says_why(htcondor, tmp_path):
    number = submitted(htcondor, "true", tmp_path, hold="True")
    assert htcondor.jobs() == {number: HELD}
    assert htcondor.job(number)["HoldReason"] == "submitted on hold at user's request"
    htcondor.run("condor_release", number)
    wait_for(htcondor, number, COMPLETED)


def test_the_pool_tells_why_a_job_fits_no_node(htcondor, tmp_path):
    number = submitted(htcondor, "true", tmp_path, request_memory="100GB")
    told = htcondor.run("condor_q", "-better-analyze", number).stdout
    assert "TARGET.Memory >= RequestMemory" in told
    assert htcondor.jobs() == {number: IDLE}
    htcondor.clear()


@pytest.mark.nightly
def test_the_job_of_a_killed_node_is_queued_again_and_the_other_goes_on(htcondor, tmp_path):
    numbers = [submitted(htcondor, "sleep 1000", tmp_path, **WHOLE) for _ in "12"]
    for number in numbers:
        wait_for(htcondor, number, RUNNING)
    places = {node_of(htcondor.job(number)): number for number in numbers}
    htcondor.kill_node("n2")
    wait_for(htcondor, places["n2"], IDLE, seconds=120)
    assert htcondor.job(places["n1"])["JobStatus"] == RUNNING
    htcondor.start_node("n2")
    wait_for(htcondor, places["n2"], RUNNING)
    assert node_of(htcondor.job(places["n2"])) == "n2"
    htcondor.clear()


def test_a_stopped_pool_leaves_nothing(htcondor, tmp_path):
    with HTCondor(tmp_path / "other", num_nodes=1, gpus=1) as other:
        script = f"setsid sleep 1000 & echo $CUDA_VISIBLE_DEVICES > {tmp_path}/gpu; sleep 1000"
        submitted(other, script, tmp_path, request_gpus=1)
        wait_until(
            lambda: (tmp_path / "gpu").exists() and (tmp_path / "gpu").read_text(), "it runs"
        )
        assert (tmp_path / "gpu").read_text() == "GPU-pretended0\n"
        started = other.processes()
        names = {one.name() for one in started}
        assert {"condor_master", "condor_collector", "condor_schedd", "condor_startd"} <= names
        ports = {c.laddr for one in started for c in one.net_connections() if c.status == "LISTEN"}
        assert ports
        assert {port.ip for port in ports} == {"127.0.0.1"}
        sockets = other.run("condor_config_val", "DAEMON_SOCKET_DIR").stdout.strip()
    assert not other.processes()
    assert not other.folder.exists()
    assert not Path(sockets).exists()
    left = {c.laddr for c in psutil.net_connections() if c.status == "LISTEN"}
    assert not ports & left


@pytest.mark.nightly
def test_nodes_may_be_hosts_of_their_own(hosts, tmp_path):
    with HTCondor(hosts=hosts) as pool:
        both = f"[ -e {tmp_path}/1 ] && [ -e {tmp_path}/2 ]"
        numbers = []
        for name in "12":
            script = f"touch {tmp_path}/{name}; until {both}; do sleep 0.1; done; hostname"
            (tmp_path / f"{name}.sh").write_text(script)
            keys = {"request_cpus": 2, "arguments": f"{tmp_path}/{name}.sh"}
            numbers.append(submitted(pool, script, tmp_path, **keys))
        for number in numbers:
            wait_for(pool, number, COMPLETED)
        said = sorted((tmp_path / f"{number}.out").read_text() for number in numbers)
        assert said == ["host1\n", "host2\n"]
        assert pool.processes()
    assert not pool.processes()
    assert not pool.folder.exists()
