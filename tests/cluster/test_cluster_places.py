import socket
from pathlib import Path

import pytest
import yaml
from distributed import Client

from mlaas4hep_dask.cluster.batch.head import running_head
from mlaas4hep_dask.cluster.batch.limits import Size
from mlaas4hep_dask.cluster.batch.records import Driver
from mlaas4hep_dask.cluster.batch.survey import by_job
from mlaas4hep_dask.cluster.dashboard import dashboard_lines
from mlaas4hep_dask.cluster.places.batch import limits_of, scratch_of, site_of, workers_now
from mlaas4hep_dask.cluster.sites import load_site
from mlaas4hep_dask.config import Cluster
from mlaas4hep_dask.errors import ClusterError, ConfigError
from mlaas4hep_dask.places import PLACES, SCHEMES, SYSTEMS


@pytest.mark.parametrize("address", [*PLACES, *(f"{scheme}://[::1]:8786" for scheme in SCHEMES)])
def test_a_place_and_the_address_of_a_scheduler_are_known_to_the_configuration(address):
    assert Cluster(address=address).address == address
    assert address.split("[")[0] in Cluster.model_fields["address"].description


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_batch_system_without_a_site_has_the_generic_one(system):
    site = site_of(Cluster(address=system))
    assert (site.name, site.system) == (system, system)
    sizes = limits_of(site, ranks=3).sizes
    assert sizes["readers"] == Size(1, site.options.readers.maximum)
    assert sizes["trainers"] == Size(3, 3)  # a worker for each rank, whatever the site has
    assert set(limits_of(site, ranks=0).sizes) == {"readers"}


def test_workers_and_memory_of_the_configuration_stand_over_those_of_a_site():
    site = site_of(Cluster(address="slurm", workers=7, memory_limit="3 GiB"))
    assert limits_of(site, ranks=1).sizes["readers"] == Size(1, 7)
    assert {site.jobs(group).memory for group in ("readers", "trainers")} == {3 * 2**30}


def test_workers_are_those_of_a_job_by_the_processes_of_its_own_group():
    names = ["readers-a-0-0", "readers-a-0-1", "readers-a-1-0", "trainers-a-2"]
    processes = {"readers": 2, "trainers": 1}
    assert by_job(names, processes) == {"readers-a-0": 2, "readers-a-1": 1, "trainers-a-2": 1}
    assert by_job(names, {"readers": 1, "trainers": 1}).keys() == set(names)


def test_workers_of_each_group_have_the_time_of_their_own_jobs_to_connect():
    more = {"mlaas4hep": {"trainers": {"jobqueue": {"death-timeout": "30 min"}}}}
    limits = limits_of(load_site("slurm", "slurm", more), ranks=1)
    assert limits.connects == {"readers": 300.0, "trainers": 1800.0}


def test_the_scratch_of_a_site_is_where_its_variables_say(monkeypatch, caplog):
    site = load_site("nersc-perlmutter")
    monkeypatch.setenv("SCRATCH", "/pscratch/sd/m/me")
    assert scratch_of(site) == Path("/pscratch/sd/m/me")
    assert scratch_of(load_site("slurm")) is None
    assert not caplog.messages
    monkeypatch.delenv("SCRATCH")  # as on another machine
    assert scratch_of(site) is None
    assert "site nersc-perlmutter has shared-scratch $SCRATCH, which is no absolute" in caplog.text


@pytest.mark.cluster
def test_a_fault_of_the_survey_is_no_silence_of_the_scheduler():
    def spoil(dask_scheduler):
        dask_scheduler.task_prefixes = None

    def mend(dask_scheduler):
        dask_scheduler.task_prefixes = {}

    with Client(processes=False, n_workers=0, dashboard_address=":0") as own:
        assert workers_now(own, processes={}).names == {}
        own.run_on_scheduler(spoil)
        with pytest.raises(AttributeError, match="values"):
            workers_now(own, processes={})
        own.run_on_scheduler(mend)
    with pytest.raises(ClusterError, match="the scheduler has ended"):
        workers_now(own, processes={})


def test_a_site_is_for_batch_systems_alone():
    with pytest.raises(ValueError, match=r"cluster\.address is 'local'"):
        Cluster(site="slurm")


def test_a_site_of_another_batch_system_is_refused_with_those_that_fit():
    with pytest.raises(Exception, match="cern-lxplus has htcondor, not slurm") as caught:
        site_of(Cluster(address="slurm", site="cern-lxplus"))
    assert "nersc-perlmutter" in str(caught.value)
    with pytest.raises(ConfigError, match=r"none\.yaml: the site's file cannot be read"):
        site_of(Cluster(address="slurm", site="none.yaml"))


@pytest.mark.cluster
def test_the_dashboard_is_told_with_the_line_that_makes_it_reachable(client, monkeypatch):
    port = client.scheduler_info()["services"]["dashboard"]
    monkeypatch.delenv("SSH_CONNECTION", raising=False)
    assert dashboard_lines(client, Cluster()) == [f"dashboard: http://127.0.0.1:{port}/status"]
    monkeypatch.setenv("SSH_CONNECTION", "192.0.2.1 50000 192.0.2.2 22")
    _, line = dashboard_lines(client, Cluster())
    assert f"ssh -N -L {port}:127.0.0.1:{port} " in line
    elsewhere = Cluster(address="tcp://login.example.org:8786")
    assert dashboard_lines(client, elsewhere) == [f"dashboard: {client.dashboard_link}"]


@pytest.mark.cluster
def test_a_scheduler_whose_one_port_is_taken_says_which_and_of_which_key(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        options = {"scheduler-ports": port, "base": "slurm", "title": "t"}
        host = {"slurm": {"scheduler-options": {"host": "127.0.0.1"}}}
        file = tmp_path / "one.yaml"
        file.write_text(yaml.safe_dump({"mlaas4hep": options, "jobqueue": host}))
        with (
            pytest.raises(ClusterError, match=rf"port {port} \(scheduler-ports\)"),
            running_head(load_site(str(file)), None, tmp_path / "log", Driver(), tmp_path),
        ):
            pass
