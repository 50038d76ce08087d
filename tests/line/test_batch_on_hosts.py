"""The main job on batch systems with nodes that are hosts of their own."""

import json
import os

import main_job
import pytest
import yaml
from conftest import started
from servers import needs_xrootd
from services.htcondor import HTCondor
from services.processes import wait_until
from services.slurm import Slurm
from services.xrootd import XRootDServer

pytestmark = [pytest.mark.ddp, pytest.mark.timeout(500)]

SYSTEMS = {
    "slurm": (Slurm, lambda job: job["NodeList"]),
    "htcondor": (HTCondor, lambda job: job["LastRemoteHost"].split("@")[1]),
}


def site_of(system):
    """A file of a site; a node with three cores has no room for two trainers."""
    options = {
        "title": "two hosts",
        "base": system,
        "readers": {"minimum": 1, "maximum": 1},
        "trainers": {"jobqueue": {"cores": 2}},
    }
    return {"mlaas4hep": options, "jobqueue": {system: {"memory": "1 GiB"}}}


@pytest.fixture(scope="module")
def found_here(tmp_path_factory):
    """What the main job finds on this machine's own workers."""
    folder = tmp_path_factory.mktemp("here")
    main_job.write_config(folder)
    main_job.run(folder, "local")
    return main_job.results(folder)


@pytest.mark.nightly
@pytest.mark.parametrize("system", ["slurm", "htcondor"])
@needs_xrootd
def test_ranks_in_jobs_on_two_hosts_find_what_one_host_finds(
    system, hosts, tmp_path, found_here, request
):
    """Their input comes from a server on one of the hosts."""
    kind, node_of = SYSTEMS[system]
    server = XRootDServer(main_job.DATA, host=hosts[1])
    request.addfinalizer(server.end)
    main_job.write_config(tmp_path, where=server.url)
    (tmp_path / "ours.yaml").write_text(yaml.safe_dump(site_of(system)))
    with started(kind, hosts=hosts, cpus=3, memory=8000) as service:
        command = [*main_job.command(system), "--site", "ours.yaml"]
        variables = {**os.environ, **service.environment}
        # The hosts have no default route, and their own names are addresses of loopback.
        done = hosts[0].run(*command, cwd=tmp_path, env=variables, check=False, timeout=400)
        assert done.returncode == 0, done.stdout + done.stderr
        (jobs,) = (tmp_path / "run.jobs").iterdir()
        scheduler = json.loads((jobs / "driver.json").read_text())["scheduler"]
        assert scheduler.startswith(f"tls://{hosts[0].address}:")
        records = [json.loads(line) for line in (jobs / "jobs.jsonl").read_text().splitlines()]
        trainers = [
            record["job"]
            for record in records
            if record["event"] == "submitted" and record["group"] == "trainers"
        ]
        wait_until(lambda: not service.jobs(), "the jobs have left the queue")
        assert sorted(node_of(service.job(number)) for number in trainers) == ["n1", "n2"]
    assert main_job.results(tmp_path) == found_here
