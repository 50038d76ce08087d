"""The SLURM that tests start is a real one: jobs run on its nodes, and fail as anywhere."""

import subprocess

import psutil
import pytest

from services.processes import wait_until
from services.slurm import Slurm

pytestmark = pytest.mark.batch


def submitted(slurm, script, folder, *options):
    """The number of a job that runs a line of shell; what it prints is in NUMBER.out."""
    out = f"--output={folder}/%j.out"
    told = slurm.run("sbatch", "--parsable", out, *options, f"--wrap={script}")
    return told.stdout.strip()


def sleeping(slurm):
    return [one for one in slurm.processes() if one.name() == "sleep"]


def is_in(slurm, number, *states):
    return slurm.job(number)["JobState"] in states


def wait_for(slurm, number, *states, seconds=60):
    wait_until(lambda: is_in(slurm, number, *states), f"job {number} {states}", seconds=seconds)


def test_jobs_run_on_both_nodes_at_the_same_time(slurm, tmp_path):
    both = f"[ -e {tmp_path}/n1 ] && [ -e {tmp_path}/n2 ]"
    script = f"touch {tmp_path}/$SLURMD_NODENAME; until {both}; do sleep 0.1; done; hostname"
    numbers = [submitted(slurm, script, tmp_path, "--exclusive") for _ in range(2)]
    for number in numbers:
        wait_for(slurm, number, "COMPLETED")
    assert {slurm.job(number)["NodeList"] for number in numbers} == set(slurm.nodes)
    name = subprocess.run(["hostname"], capture_output=True, text=True).stdout
    assert [(tmp_path / f"{number}.out").read_text() for number in numbers] == [name, name]


def test_a_cancelled_job_ends_with_its_processes(slurm, tmp_path):
    number = submitted(slurm, "sleep 1000", tmp_path)
    wait_for(slurm, number, "RUNNING")
    # What a shell forks while SLURM reads the tree of its processes is not ended with them.
    wait_until(lambda: sleeping(slurm), "the job sleeps")
    slurm.run("scancel", number)
    wait_for(slurm, number, "CANCELLED")
    wait_until(lambda: not slurm.jobs(), "the queue is empty")
    assert not sleeping(slurm)


def test_a_job_over_its_memory_is_killed(slurm, tmp_path):
    script = "python3 -c 'data = bytearray(300_000_000); import time; time.sleep(1000)'"
    number = submitted(slurm, script, tmp_path, "--mem=100M")
    wait_for(slurm, number, "FAILED", "OUT_OF_MEMORY", "CANCELLED")
    assert "exceeded memory limit" in (tmp_path / f"{number}.out").read_text()


def test_a_held_job_waits_and_says_why(slurm, tmp_path):
    number = submitted(slurm, "true", tmp_path, "--hold")
    assert slurm.jobs() == {number: ("PENDING", "JobHeldUser")}
    slurm.run("scontrol", "release", number)
    wait_for(slurm, number, "COMPLETED")


def test_a_job_for_which_no_node_is_large_enough_is_refused(slurm, tmp_path):
    done = slurm.run("sbatch", "--mem=100G", "--wrap=true", check=False)
    assert done.returncode != 0
    assert "Memory specification can not be satisfied" in done.stderr


@pytest.mark.nightly
def test_the_job_of_a_killed_node_fails_and_the_other_goes_on(slurm, tmp_path):
    numbers = [submitted(slurm, "sleep 1000", tmp_path, f"--nodelist={n}") for n in slurm.nodes]
    for number in numbers:
        wait_for(slurm, number, "RUNNING")
    slurm.kill_node("n2")
    wait_for(slurm, numbers[1], "NODE_FAIL", seconds=120)
    assert is_in(slurm, numbers[0], "RUNNING")
    slurm.start_node("n2")
    number = submitted(slurm, "true", tmp_path, "--nodelist=n2")
    wait_for(slurm, number, "COMPLETED")
    slurm.clear()


def test_jobs_outlive_their_controller(slurm, tmp_path):
    number = submitted(slurm, "sleep 1000", tmp_path)
    wait_for(slurm, number, "RUNNING")
    slurm.stop_controller()
    assert slurm.run("squeue", check=False).returncode != 0
    slurm.start_controller()
    assert is_in(slurm, number, "RUNNING")
    slurm.clear()


@pytest.mark.nightly
def test_nodes_may_be_hosts_of_their_own(hosts, tmp_path):
    with Slurm(hosts=hosts) as slurm:
        assert sorted(slurm.run("srun", "-N2", "hostname").stdout.split()) == ["host1", "host2"]
        number = submitted(slurm, "sleep 1000", tmp_path, "--nodelist=n2")
        wait_for(slurm, number, "RUNNING")
        slurm.kill_node("n2")
        wait_for(slurm, number, "NODE_FAIL", seconds=120)
        slurm.start_node("n2")
        assert slurm.run("srun", "--nodelist=n2", "hostname").stdout == "host2\n"
        started = slurm.processes()
        assert started
    assert not slurm.processes()
    assert not slurm.folder.exists()


def test_a_stopped_slurm_leaves_nothing(slurm, tmp_path):
    with Slurm(tmp_path / "other", num_nodes=1, gpus=1) as other:
        script = "setsid sleep 1000 & echo $CUDA_VISIBLE_DEVICES; sleep 1000"
        number = submitted(other, script, tmp_path, "--gres=gpu:1")
        out = tmp_path / f"{number}.out"
        wait_until(
            lambda: out.exists() and out.read_text(), "the job has started", log=other.folder
        )
        assert out.read_text() == "0\n"
        refused = other.run("sbatch", "--gres=gpu:2", "--wrap=true", check=False)
        assert refused.returncode != 0
        started = other.processes()
        names = {one.name() for one in started}
        assert {"munged", "slurmctld", "slurmd", "sleep"} <= names
        ports = {c.laddr for one in started for c in one.net_connections() if c.status == "LISTEN"}
        assert ports
        assert {port.ip for port in ports} == {"127.0.0.1"}
    assert not other.processes()
    assert not other.folder.exists()
    left = {c.laddr for c in psutil.net_connections() if c.status == "LISTEN"}
    assert not ports & left
