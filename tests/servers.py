"""Servers in processes of their own, stopped by the tests that started them."""

import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
# Rucio's server and that of S3 do not go together with what is tested.
OTHERS = TESTS.parent / ".venv-servers" / "bin" / "python"
needs_servers = pytest.mark.skipif(not OTHERS.exists(), reason="make servers")


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
def http_server(folder):
    """The process and the URL of a server of a folder, with range requests."""
    with started(sys.executable, TESTS / "range_server.py", folder) as (process, port):
        yield process, f"http://127.0.0.1:{int(port)}"
