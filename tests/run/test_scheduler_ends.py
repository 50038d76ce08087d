"""Runs whose scheduler ends or stands still under way, in processes of their own."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
from dask_process import scheduler_process
from paths import TUTORIAL

from mlaas4hep_dask.config import load

DATASET = TUTORIAL / "dataset.yaml"

pytestmark = [pytest.mark.cluster, pytest.mark.ddp, pytest.mark.timeout(400)]
ENDINGS = {
    signal.SIGKILL: "is gone (",
    signal.SIGSTOP: "is gone (it has not answered for 60 s)",
}


@contextmanager
def worker_process(tmp_path, file):
    command = [sys.executable, "-m", "distributed.cli.dask_worker", "--scheduler-file", str(file)]
    options = ("--no-dashboard", "--nthreads", "1", "--local-directory", str(tmp_path / "worker"))
    with (tmp_path / "worker.log").open("w") as log:
        process = subprocess.Popen([*command, *options], stdout=log, stderr=log)
        try:
            yield process
        finally:
            process.kill()
            process.wait(timeout=20)


@pytest.mark.slow
@pytest.mark.parametrize(
    "ending", [signal.SIGKILL, pytest.param(signal.SIGSTOP, marks=pytest.mark.nightly)]
)
def test_a_run_whose_scheduler_ends_ends_with_status_2_and_one_line(ending, tmp_path):
    settings = ["training.epochs=1000000", "training.ranks=1", "specs.cache=null"]
    (tmp_path / "dataset.yaml").write_text(load(DATASET, settings).to_yaml(absolute=True))
    output = tmp_path / "output.txt"
    with scheduler_process(tmp_path) as (scheduler, file), worker_process(tmp_path, file):
        command = [sys.executable, "-m", "mlaas4hep_dask.run", str(tmp_path / "dataset.yaml")]
        options = [
            "--cluster",
            json.loads(file.read_text())["address"],
            "--output",
            str(tmp_path / "run"),
        ]
        with output.open("w") as written:
            run = subprocess.Popen(
                [*command, *options],
                stdout=written,
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, "COLUMNS": "200"},
            )
        try:
            while "epoch" not in output.read_text():
                assert run.poll() is None, run.communicate()
                time.sleep(0.1)  # between looks
            scheduler.send_signal(ending)
            _, errors = run.communicate(timeout=200)
        finally:
            run.kill()
            run.wait(timeout=20)
    assert run.returncode == 2
    assert "Traceback" not in errors
    (line,) = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: the scheduler at tcp://")
    assert ENDINGS[ending] in line
