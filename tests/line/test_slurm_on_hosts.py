"""The main job on a SLURM with nodes that are hosts of their own."""

import json
import os

import main_job
import pytest
import yaml
from conftest import started
from services.slurm import Slurm

pytestmark = [pytest.mark.ddp, pytest.mark.timeout(500)]

# A node has no room for two trainers.
SITE = {
    "mlaas4hep": {
        "title": "two hosts",
        "base": "slurm",
        "readers": {"minimum": 1, "maximum": 1},
        "trainers": {"jobqueue": {"cores": 2}},
    },
    "jobqueue": {"slurm": {"memory": "1 GiB"}},
}


@pytest.fixture
def slurm_on_hosts(hosts):
    with started(Slurm, hosts=hosts, cpus=3, memory=8000) as service:
        yield service


def test_ranks_in_jobs_on_two_hosts_find_what_one_host_finds(hosts, slurm_on_hosts, tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        folder.mkdir()
        main_job.write_config(folder)
    (there / "ours.yaml").write_text(yaml.safe_dump(SITE))
    command = [*main_job.command("slurm"), "--site", "ours.yaml"]
    variables = {**os.environ, **slurm_on_hosts.environment}
    # The hosts have no default route, and their own names are addresses of loopback.
    done = hosts[0].run(*command, cwd=there, env=variables, check=False, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    (jobs,) = (there / "run.jobs").iterdir()
    scheduler = json.loads((jobs / "driver.json").read_text())["scheduler"]
    assert scheduler.startswith(f"tls://{hosts[0].address}:")
    records = [json.loads(line) for line in (jobs / "jobs.jsonl").read_text().splitlines()]
    trainers = {
        record["job"]
        for record in records
        if record["event"] == "submitted" and record["group"] == "trainers"
    }
    nodes = [slurm_on_hosts.job(number)["NodeList"] for number in trainers]
    assert sorted(nodes) == ["n1", "n2"]
    assert not slurm_on_hosts.run("squeue", "--noheader", "--states=PENDING,RUNNING").stdout
    main_job.run(here, "local")
    assert main_job.results(there) == main_job.results(here)
