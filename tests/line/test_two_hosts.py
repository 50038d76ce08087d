"""The main job on two hosts, which are namespaces of this one, all of Dask by TLS."""

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager

import main_job
import pytest
from certificates import make_certificates
from conftest import started
from dask_on_hosts import dask_on
from services.hosts import hosts as joined
from services.processes import wait_until

pytestmark = [pytest.mark.batch, pytest.mark.ddp, pytest.mark.timeout(600)]

NETWORKS = {
    "own names on loopback": {"debian": True},
    "an interface that reaches nobody": {"debian": False, "spare": True},
    "no names for addresses": {"debian": True, "names": False},
}
MANY = 60  # epochs: of these, some are left when something happens after the first


@pytest.fixture(scope="module")
def found_here(tmp_path_factory):
    """What the main job finds on this machine's own workers."""
    folder = tmp_path_factory.mktemp("here")
    main_job.write_config(folder)
    main_job.run(folder, "local")
    return main_job.results(folder)


def network(number, **options):
    """Hosts, or a skip with the reason."""
    return started(joined, number, **options)


class Job:
    """The main job in the first of some hosts, which train together, and its folder."""

    def __init__(self, folder, process, dask):
        self.folder = folder
        self.process = process
        self.dask = dask

    def said(self):
        return (self.folder / "said").read_text()

    def wait_until(self, is_so, what):
        def looked():
            return is_so() or self.process.poll() is not None

        wait_until(looked, what, seconds=400, log=self.folder / "said")
        assert is_so(), self.said()

    def wait_for_an_epoch(self):
        """Wait until another epoch has ended."""
        folder = self.folder / "run" / "checkpoints"
        before = set(folder.glob("epoch-*.pt"))
        self.wait_until(lambda: set(folder.glob("epoch-*.pt")) - before, "an epoch ends")


@contextmanager
def main_job_on(hosts, folder, environment, *, epochs=2):
    """The main job, with a reader in the first host and a rank in both."""
    folder.mkdir()
    main_job.write_config(folder)
    config = json.loads((folder / "dataset.yaml").read_text())
    config["training"]["epochs"] = epochs
    (folder / "dataset.yaml").write_text(json.dumps(config))
    workers = [(hosts[0], "readers-0"), (hosts[0], "trainers-1"), (hosts[1], "trainers-2")]
    with (
        dask_on(hosts, workers, folder, environment=environment) as dask,
        (folder / "said").open("wb") as said,
        hosts[0].popen(
            main_job.command(dask.address),
            cwd=folder,
            env={**os.environ, **environment},
            stdout=said,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        try:
            yield Job(folder, process, dask)
        finally:
            process.kill()


@pytest.mark.parametrize(
    "named",
    [
        "own names on loopback",
        "an interface that reaches nobody",
        "no names for addresses",
    ],
)
@pytest.mark.nightly
def test_two_hosts_find_what_one_finds_and_listen_where_they_reach_each_other(
    named, tmp_path, found_here
):
    environment = make_certificates(tmp_path / "keys")
    listening = {}
    with (
        network(2, **NETWORKS[named]) as hosts,
        main_job_on(hosts, tmp_path / "job", environment) as job,
    ):

        def has_ended():
            for host in hosts:
                listening.setdefault(host, set()).update(host.listening())
            return job.process.poll() is not None

        job.wait_until(has_ended, "the job ends")
        assert job.dask.address.startswith("tls://10.213.77.1:")
    assert job.process.returncode == 0, job.said()
    assert "starting epoch" not in job.said()  # nothing had to be done again
    for host, num_places in zip(hosts, (4, 2), strict=True):  # Dask's, and gloo's of each rank
        outside = [place for place in listening[host] if place[0] != "127.0.0.1"]
        assert [address for address, _ in outside] == [host.address] * num_places
    assert main_job.results(job.folder) == found_here


# Ports whose server answers as the store of torch does, which asks nobody for a proof.
ASK_STORES = """
import datetime, os, sys, threading, torch.distributed as dist
found, options = [], {"is_master": False, "use_libuv": False}
def ask(host, port):
    store = dist.TCPStore(host, int(port), timeout=datetime.timedelta(seconds=4), **options)
    found.append((host, port, store.list_keys()))
for place in sys.argv[1:]:
    threading.Thread(target=ask, args=place.split(":"), daemon=True).start()
threading.Event().wait(8)  # what does not answer is no store
print("stores:", found, flush=True)
os._exit(0)
"""


@pytest.mark.nightly
def test_a_stranger_reaches_neither_the_scheduler_nor_what_ranks_tell_each_other(tmp_path):
    environment = make_certificates(tmp_path / "keys")
    others = make_certificates(tmp_path / "others")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    main_job.write_config(elsewhere)
    with (
        network(3) as hosts,
        main_job_on(hosts, tmp_path / "job", environment, epochs=100 * MANY) as job,
    ):
        job.wait_for_an_epoch()

        def refused(address, own):
            options = {"cwd": elsewhere, "env": {**os.environ, **own}, "check": False}
            done = hosts[2].run(*main_job.command(address), **options, timeout=200)
            assert done.returncode == 2, done.stdout + done.stderr
            return done.stderr

        secure = job.dask.address
        assert "needs certificates (ca-file, client.cert, client.key not set)" in refused(
            secure, {}
        )
        assert "do not take each other's certificates" in refused(secure, others)
        assert "one with tls:// in place of tcp://" in refused(secure.replace("tls", "tcp"), {})
        places = {place for host in hosts[:2] for place in host.listening()}
        reached = [f"{host}:{port}" for host, port in places if host != "127.0.0.1"]
        assert len(reached) == 6
        asked = hosts[2].run(sys.executable, "-c", ASK_STORES, *reached, check=False)
        assert asked.stdout == "stores: []\n"
        job.wait_for_an_epoch()


QUICK = {"DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "20s"}  # after which a silent host is given up


def test_training_goes_on_with_another_worker_when_a_host_is_cut_off(tmp_path, found_here):
    environment = {**make_certificates(tmp_path / "keys"), **QUICK}
    with (
        network(2) as hosts,
        main_job_on(hosts, tmp_path / "job", environment, epochs=MANY) as job,
    ):
        job.wait_for_an_epoch()
        hosts[1].unplug()
        job.wait_until(lambda: "starting epoch" in job.said(), "the ranks start again")
        job.dask.add(hosts[0], "trainers-3")
        job.wait_until(lambda: job.process.poll() is not None, "the job ends")
        assert job.process.returncode == 0, job.said()
        # Its thread may wait for the rank that was cut off for minutes; it ends all the same.
        survivor = job.dask.workers["trainers-1"]
        survivor.send_signal(signal.SIGTERM)
        assert survivor.wait(timeout=100) is not None
    found = main_job.results(job.folder)
    assert found["specs"] == found_here["specs"]
    assert found["num_epochs"] == MANY


@pytest.mark.nightly
def test_a_run_ends_in_words_when_no_worker_comes_for_a_host_that_was_cut_off(tmp_path):
    environment = {**make_certificates(tmp_path / "keys"), **QUICK}
    with (
        network(2) as hosts,
        main_job_on(hosts, tmp_path / "job", environment, epochs=MANY) as job,
    ):
        job.wait_for_an_epoch()
        hosts[1].unplug()
        job.wait_until(lambda: job.process.poll() is not None, "the job ends")
    assert job.process.returncode == 2
    assert "worker tls://10.213.77.2:" in job.said()
    assert "training.ranks is 2: 2 workers needed, and after 60 s the cluster has" in job.said()
