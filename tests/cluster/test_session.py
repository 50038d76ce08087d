import os
import subprocess
import sys

import psutil
import pytest

from mlaas4hep_dask import connect
from mlaas4hep_dask.cluster import USUAL_RANKS
from mlaas4hep_dask.cluster.session import Session
from mlaas4hep_dask.cluster.sites.site import system_of
from mlaas4hep_dask.config import Training
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


WARM = """
import sys
from mlaas4hep_dask import connect
from mlaas4hep_dask.cluster import warm_up

def is_loaded():
    return "torch._dynamo" in sys.modules

if __name__ == "__main__":
    warm_up(trains={trains})
    with connect(workers=2, ranks=2) as cluster:
        print(*cluster.client.run(is_loaded).values())
"""


@pytest.mark.cluster
@pytest.mark.parametrize("trains", [True, pytest.param(False, marks=pytest.mark.nightly)])
def test_workers_that_will_all_train_are_forked_from_a_process_with_torch(trains, tmp_path):
    script = tmp_path / "warm.py"
    script.write_text(WARM.format(trains=trains))
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == [str(trains)] * 2, done.stderr


def test_as_many_ranks_as_a_command_expects_are_the_default():
    assert Training().ranks == USUAL_RANKS


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


UNGUARDED = """
from mlaas4hep_dask import connect


def double(number):
    return 2 * number


with connect(workers=1, ranks=1) as client:
    print(client.submit(double, 21).result())
"""


@pytest.mark.cluster
@pytest.mark.parametrize("is_file", [True, False])
def test_workers_do_not_run_the_script_that_connects(is_file, tmp_path):
    (tmp_path / "script.py").write_text(UNGUARDED)
    done = subprocess.run(
        [sys.executable, "script.py" if is_file else "-"],
        input=UNGUARDED,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("42\n", 0), done.stderr
    assert "Traceback" not in done.stderr
