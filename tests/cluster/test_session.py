import os

import psutil
import pytest

from mlaas4hep_dask import connect
from mlaas4hep_dask.cluster.session import Session
from mlaas4hep_dask.cluster.sites.site import system_of
from mlaas4hep_dask.errors import ConfigError
from mlaas4hep_dask.places import LOCAL
from mlaas4hep_dask.waiting import ClusterHandle


@pytest.mark.cluster
def test_a_session_is_a_handle_that_is_ended_by_one_call():
    with connect(workers=1, ranks=1) as cluster:
        assert isinstance(cluster, Session)
        assert ClusterHandle.of(cluster) is cluster
        assert cluster.dashboard.startswith("dashboard: http://127.0.0.1:")
        assert "Dashboard" in cluster._repr_html_()  # Dask's widget
        worker = cluster.submit(os.getpid).result()
        assert psutil.pid_exists(worker)
    assert cluster.client.status == "closed"
    assert not psutil.pid_exists(worker)
    cluster.close()  # again is nothing


def test_a_site_tells_its_batch_system():
    assert system_of("cern-lxplus", None) == system_of("cern-lxplus", LOCAL) == "htcondor"
    assert system_of("nersc-perlmutter", None) == "slurm"
    assert system_of("slurm", "tcp://a:1") == "tcp://a:1"
    assert system_of(None, None) is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"workers": 0}, "workers: expected"),
        ({"address": "slurn"}, "did you mean 'slurm'"),
        ({"site": "slurm", "address": "tcp://a:1"}, "site: is for batch systems"),
    ],
)
def test_arguments_that_are_wrong_are_told_by_their_names(options, words):
    with pytest.raises(ConfigError, match=words) as caught:
        connect(**options)
    assert str(caught.value).startswith("connect: ")
