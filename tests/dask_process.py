"""A Dask scheduler in a process of its own, as an operator starts it."""

import subprocess
import sys
import time
from contextlib import contextmanager


@contextmanager
def scheduler_process(tmp_path):
    """The process and its file with the address."""
    file = tmp_path / "scheduler.json"
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "distributed.cli.dask_scheduler", "--no-dashboard"),
            *("--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(file)),
        ],
        stderr=subprocess.DEVNULL,
    )
    try:
        while not file.exists():
            assert process.poll() is None
            time.sleep(0.05)  # between looks
        yield process, file
    finally:
        process.kill()
        process.wait(timeout=20)
