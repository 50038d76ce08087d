"""The scripts of all sites, taken by real batch systems."""

import re
import subprocess

import pytest

pytest.importorskip("services.slurm", reason="no batch systems that tests can start")

import dask
from conftest import commands_of, started
from services.htcondor import HTCondor
from services.slurm import Slurm

from mlaas4hep_dask.cluster.batch.head import certificates
from mlaas4hep_dask.cluster.sites import head_script, job_script, load_site, site_names
from mlaas4hep_dask.cluster.sites.model import HEAD
from mlaas4hep_dask.places import GROUPS

pytestmark = pytest.mark.batch
SITES = {name: load_site(name).system for name in site_names()}


def sites_of(system):
    names = [name for name, of in SITES.items() if of == system]
    return pytest.mark.parametrize(
        ("name", "group"),
        [
            *((name, group) for name in names for group in GROUPS),
            *((name, HEAD) for name in names if load_site(name).options.shared_files),
        ],
    )


@pytest.fixture(scope="module")
def large_slurm():
    """A SLURM whose nodes say that they are large, and have GPUs."""
    with (
        started(Slurm, cpus=64, memory=64_000, gpus=2) as made,
        pytest.MonkeyPatch.context() as patch,
    ):
        yield commands_of(made, patch)


@pytest.fixture(scope="module")
def small_htcondor():
    with started(HTCondor) as made, pytest.MonkeyPatch.context() as patch:
        yield commands_of(made, patch)


@pytest.fixture
def proxy(tmp_path):
    """A certificate with its key, as a proxy is."""
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=physicist",
         "-days", "2", "-keyout", "key.pem", "-out", "proxy"],
        cwd=tmp_path, check=True, capture_output=True,
    )  # fmt: skip
    file = tmp_path / "proxy"
    file.write_text(file.read_text() + (tmp_path / "key.pem").read_text())
    file.chmod(0o600)
    return file


def script(name, group, folder, address="tls://127.0.0.1:8786"):
    site = load_site(name)
    with dask.config.set({"jobqueue.slurm.account": "m1234"}):
        if group == HEAD:
            words = ["-m", "mlaas4hep_dask", "run", "it's.yaml"]
            return head_script(site, words, name="run-head", folder=folder, logs=folder)
        options = {"scheduler_address": address, "name": f"run-{group}-0", "logs": folder}
        return job_script(site, group, **options)


@sites_of("slurm")
def test_slurm_would_take_the_script_of_a_site(name, group, large_slurm, tmp_path):
    text = script(name, group, tmp_path).text
    # The features of nodes are the one thing that this SLURM lacks; accounts and QOS it ignores.
    file = tmp_path / "job.sh"
    file.write_text(re.sub(r"#SBATCH --constraint=.*\n", "", text))
    done = subprocess.run(["sbatch", "--test-only", file], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "to start at" in done.stderr


@sites_of("htcondor")
def test_htcondor_would_take_the_submit_file_of_a_site(
    name, group, small_htcondor, tmp_path, proxy, monkeypatch
):
    monkeypatch.setenv("X509_USER_PROXY", str(proxy))
    made = script(name, group, tmp_path)
    file, ad = tmp_path / "job.sub", tmp_path / "ad"
    file.write_text(made.text)
    done = subprocess.run(["condor_submit", "-dry-run", ad, file], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    written = dict(re.findall(r"^(\w+)\s*=\s*(.*)$", ad.read_text(), re.MULTILINE))
    assert written["JobBatchName"] == f'"{made.name}"'
    assert int(written["RequestMemory"]) > load_site(name).jobs(group).memory / 2**20
    assert "DOLLAR" not in ad.read_text()


def ad_of(text, folder):
    """What condor_submit makes of a submit file, as HTCondor writes it."""
    file, ad = folder / "job.sub", folder / "ad"
    file.write_text(text)
    done = subprocess.run(["condor_submit", "-dry-run", ad, file], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return dict(re.findall(r"^(\w+)\s*=\s*(.*)$", ad.read_text(), re.MULTILINE))


def listed(text):
    return set(text.strip('"').replace(", ", ",").split(","))


def test_htcondor_transfers_the_keys_of_a_run_from_a_folder_with_an_odd_name(
    small_htcondor, tmp_path
):
    keys = tmp_path / 'it\'s a "run" $(of) mine'
    options = {"scheduler_address": "tls://10.0.0.1:8786", "name": "a", "logs": keys}
    made = job_script(load_site("coffea-casa"), "readers", security=certificates(keys), **options)
    written = ad_of(made.text, tmp_path)
    plain = str(keys).replace('"', '\\"')
    assert {f"{plain}/cert.pem", f"{plain}/key.pem"} <= listed(written["TransferInput"])
    assert listed(written["EncryptInputFiles"]) == {"cert.pem", "key.pem"}
    assert written["Out"].startswith(f'"{plain}/')
