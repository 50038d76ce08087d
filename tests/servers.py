"""Servers in processes of their own, stopped by the tests that started them."""

import json
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager

import pytest
from paths import REPOSITORY, TESTS
from services.xrootd import XRootDServer

# Rucio's server and that of S3 do not go together with what is tested.
OTHERS = REPOSITORY / ".venv-servers" / "bin" / "python"
needs_servers = pytest.mark.skipif(not OTHERS.exists(), reason="make servers")
needs_xrootd = pytest.mark.skipif(
    shutil.which("xrootd") is None and not (os.environ.get("CI") and shutil.which("apt-get")),
    reason="apt-get install xrootd-server",
)


@contextmanager
def started(*command, log=None):
    """A process and the first line that it prints."""
    errors = subprocess.DEVNULL if log is None else log.open("w")
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
    try:
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait(timeout=20)
        process.stdout.close()
        if log is not None:
            errors.close()


@contextmanager
def http_server(folder, *rate):
    """The process and the URL of a server of a folder, with range requests."""
    with started(sys.executable, TESTS / "range_server.py", folder, *rate) as (process, port):
        yield process, f"http://127.0.0.1:{int(port)}"


@contextmanager
def xrootd_server(folder):
    """The server and the URL of a folder by XRootD."""
    server = XRootDServer(folder)
    try:
        yield server, server.url
    finally:
        server.end()


def metrics_of_a_run(folder):
    """What the command writes to metrics.json, run on the dataset.yaml of a folder."""
    done = subprocess.run(
        [sys.executable, "-m", "mlaas4hep_dask.run", "dataset.yaml", "--output", "out"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads((folder / "out" / "metrics.json").read_text())


# What a test of remote files takes as parameters.
HTTP_AND_XROOTD = [
    pytest.param(http_server, id="http"),
    pytest.param(xrootd_server, id="root", marks=needs_xrootd),
]
