"""Ranks on two machines: two network namespaces of this one, joined by a cable of their own."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from paths import TUTORIAL

DATA = TUTORIAL / "data"
NETS = Path("/etc/netns")  # files there stand in the place of those in /etc, in a namespace
NAMES = (f"mlaas-a{os.getpid()}", f"mlaas-b{os.getpid()}")
HOSTS = ("10.213.77.1", "10.213.77.2")


def can_make_namespaces():
    if os.geteuid() != 0 or not (shutil.which("ip") and shutil.which("unshare")):
        return False
    if subprocess.run(["ip", "netns", "add", "mlaas-try"], capture_output=True).returncode:
        return False
    return subprocess.run(["ip", "netns", "del", "mlaas-try"]).returncode == 0


def address_in(file):
    """The scheduler's address; None while its file is not there, or not yet whole."""
    try:
        return json.loads(file.read_text())["address"]
    except (FileNotFoundError, json.JSONDecodeError):
        return None


@pytest.fixture
def machines():
    """Names of two namespaces in which this machine's name is a loopback address, as on Debian."""
    if not can_make_namespaces():
        pytest.skip("needs root, iproute2 and network namespaces")
    had_nets = NETS.exists()
    cable = (f"va{os.getpid()}", f"vb{os.getpid()}")
    try:
        for name in NAMES:
            subprocess.run(["ip", "netns", "add", name], check=True)
            (NETS / name).mkdir(parents=True)
            text = f"127.0.0.1 localhost\n127.0.1.1 {socket.gethostname()}\n"
            (NETS / name / "hosts").write_text(text)
        link = ["ip", "link", "add", cable[0], "type", "veth", "peer", "name", cable[1]]
        subprocess.run(link, check=True)
        for name, end, host in zip(NAMES, cable, HOSTS, strict=True):
            inside = ["ip", "-n", name]
            subprocess.run(["ip", "link", "set", end, "netns", name], check=True)
            subprocess.run([*inside, "addr", "add", f"{host}/24", "dev", end], check=True)
            for device in ("lo", end):
                subprocess.run([*inside, "link", "set", device, "up"], check=True)
        yield NAMES
    finally:
        for name in NAMES:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)
            shutil.rmtree(NETS / name, ignore_errors=True)
        if not had_nets:
            NETS.rmdir()


@pytest.mark.timeout(280)
def test_ranks_of_two_machines_train_though_the_host_name_is_a_loopback_address(machines, tmp_path):
    config = {
        "name": "t",
        "tree": "events",
        "samples": [
            {"name": "st", "label": 1, "files": str(DATA / "cms_heptutorial_single_top.root")},
            {"name": "ww", "label": 0, "files": str(DATA / "cms_heptutorial_ww.root")},
        ],
        "branches": {"include": ["MET_*", "NJet"]},
        "specs": {"cache": None},
        "training": {"epochs": 2, "ranks": 2},
    }
    (tmp_path / "dataset.yaml").write_text(json.dumps(config))  # JSON is YAML
    file = tmp_path / "scheduler.json"
    first, second = (["ip", "netns", "exec", name] for name in machines)
    # Process numbers of their own tell ranks that they cannot share memory.
    apart = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    worker = [
        *(sys.executable, "-m", "distributed.cli.dask_worker", "--nthreads", "1", "--no-nanny"),
        *("--no-dashboard", "--scheduler-file", str(file), "--local-directory", str(tmp_path)),
    ]
    scheduler = [
        *(sys.executable, "-m", "distributed.cli.dask_scheduler", "--no-dashboard", "--port", "0"),
        *("--host", HOSTS[0], "--scheduler-file", str(file)),
    ]
    started = [subprocess.Popen([*first, *scheduler], stderr=subprocess.DEVNULL)]
    try:
        while (address := address_in(file)) is None:
            assert started[0].poll() is None
            time.sleep(0.05)  # between looks
        for inside, host in ((first, HOSTS[0]), ([*second, *apart], HOSTS[1])):
            command = [*inside, *worker, "--host", host]
            started.append(subprocess.Popen(command, stderr=subprocess.DEVNULL))
        run = [sys.executable, "-m", "mlaas4hep_dask.run", "dataset.yaml", "--cluster", address]
        done = subprocess.run(
            [*first, *run, "--output", "run"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )
    finally:
        for process in reversed(started):
            process.kill()
            process.wait(timeout=20)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "starting epoch" not in done.stderr  # nothing had to be done again
    epochs = json.loads((tmp_path / "run" / "metrics.json").read_text())["epochs"]
    assert len(epochs) == 2
