"""The main job on workers that are jobs of a real batch system, with files by XRootD."""

import sys
from pathlib import Path

import dask_jobqueue
import main_job
import pytest
from paths import REPOSITORY
from servers import needs_xrootd, xrootd_server

pytestmark = [pytest.mark.timeout(280), needs_xrootd]


@pytest.fixture(scope="module")
def found_here(tmp_path_factory):
    """What the main job finds on this machine's own workers, from local files."""
    folder = tmp_path_factory.mktemp("here")
    main_job.write_config(folder)
    main_job.run(folder, "local")
    return main_job.results(folder)


def options(folder):
    """Of workers, for both systems: one process of one thread per job."""
    # A job of HTCondor begins with an empty environment.
    kept = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": str(folder)}
    kept["PYTHONPATH"] = str(REPOSITORY)
    return {
        "cores": 1,
        "processes": 1,
        "memory": "1500 MiB",
        "interface": "lo",
        "death_timeout": 60,
        "log_directory": str(folder / "logs"),
        "job_script_prologue": [f"export {name}={value}" for name, value in kept.items()],
        "scheduler_options": {"dashboard_address": "127.0.0.1:0"},
    }


def found_by(cluster, folder):
    """What the main job finds with two jobs of a batch system, from files of an XRootD server."""
    with cluster, xrootd_server(main_job.DATA) as (_, url):
        main_job.write_config(folder, where=url)
        cluster.scale(jobs=2)
        main_job.run(folder, cluster.scheduler_address)
    return main_job.results(folder)


def test_the_main_job_finds_the_same_on_slurm(slurm, tmp_path, found_here):
    cluster = dask_jobqueue.SLURMCluster(**options(tmp_path), walltime="00:10:00")
    assert found_by(cluster, tmp_path) == found_here
    assert len(list((tmp_path / "logs").glob("*.out"))) == 2  # one of each job


def test_the_main_job_finds_the_same_on_htcondor(htcondor, tmp_path, found_here):
    cluster = dask_jobqueue.HTCondorCluster(**options(tmp_path), disk="100MB")
    assert found_by(cluster, tmp_path) == found_here
    assert len(list((tmp_path / "logs").glob("*.out"))) == 2
