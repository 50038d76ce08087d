"""Workers that join later are looked at before they take a task."""

import logging
import os
from subprocess import getoutput

import elsewhere
import pytest
from distributed import Client
from services.processes import wait_until

from mlaas4hep_dask.cluster import connect
from mlaas4hep_dask.config import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(200)]

WHO = "sleep 0.1; echo $PPID"  # the process of the worker
OTHER = "import mlaas4hep_dask\nmlaas4hep_dask.__version__ = '0.0.1'\n"


def names(client):
    return {worker["name"] for worker in client.scheduler_info(n_workers=-1)["workers"].values()}


def test_a_newcomer_with_another_version_is_sent_away_before_it_works(tmp_path, caplog):
    caplog.set_level(logging.WARNING)  # Dask silences handlers while a cluster lives
    other = elsewhere.at_start(tmp_path / "site", OTHER)
    with elsewhere.cluster(tmp_path / "workers", names=["good"]) as place:
        with connect(Cluster(address=place), ranks=1) as client:
            tasks = [client.submit(getoutput, WHO, pure=False) for _ in range(150)]
            odd = elsewhere.worker(place, tmp_path, "--name", "odd", paths=[other])
            assert odd.wait(100) is not None
            assert client.status == "running"
            assert str(odd.pid) not in client.gather(tasks)
            assert names(client) == {"good"}
        words = "(name odd, host 127.0.0.1) joined with mlaas4hep_dask 0.0.1, and this process has"
        assert words in caplog.text
        with Client(place) as client:  # nobody asks any more
            odd = elsewhere.worker(place, tmp_path, "--name", "odd", paths=[other])
            try:
                wait_until(lambda: "odd" in names(client), "it has joined", seconds=100)
                assert client.submit(os.getpid, workers="odd").result(60) == odd.pid
            finally:
                odd.terminate()
                odd.wait(30)


def test_a_newcomer_without_this_package_does_not_start(tmp_path):
    lacking = elsewhere.without(tmp_path / "site", "mlaas4hep_dask")
    with (
        elsewhere.cluster(tmp_path / "workers", names=["good"]) as place,
        connect(Cluster(address=place), ranks=1) as client,
    ):
        odd = elsewhere.worker(place, tmp_path, "--name", "odd", paths=[lacking])
        assert odd.wait(100) != 0
        wait_until(lambda: names(client) == {"good"}, "the other is left")
