"""Ranks on two machines: two hosts that are namespaces of this one."""

import json
import subprocess
import sys
from contextlib import ExitStack

import main_job
import pytest
from services.processes import wait_until

QUIET = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


def address_in(file):
    """The scheduler's address; None while its file is not there, or not yet whole."""
    try:
        return json.loads(file.read_text())["address"]
    except (FileNotFoundError, json.JSONDecodeError):
        return None


@pytest.mark.timeout(280)
def test_ranks_of_two_machines_train_though_the_host_name_is_a_loopback_address(hosts, tmp_path):
    first = hosts[0]
    file = tmp_path / "scheduler.json"
    scheduler = [
        *(sys.executable, "-m", "distributed.cli.dask_scheduler", "--no-dashboard", "--port", "0"),
        *("--host", first.address, "--scheduler-file", str(file)),
    ]
    worker = [
        *(sys.executable, "-m", "distributed.cli.dask_worker", "--nthreads", "1", "--no-nanny"),
        *("--no-dashboard", "--scheduler-file", str(file), "--local-directory", str(tmp_path)),
    ]
    there, here = tmp_path / "there", tmp_path / "here"
    for folder in (there, here):
        folder.mkdir()
        main_job.write_config(folder)
    with ExitStack() as stack:

        def start(host, command):
            process = stack.enter_context(host.popen(command, **QUIET))
            stack.callback(process.kill)
            return process

        alive = start(first, scheduler)

        def address():
            assert alive.poll() is None, "the scheduler has ended"
            return address_in(file)

        place = wait_until(address, "the scheduler listens")
        for host in hosts:
            start(host, [*worker, "--host", host.address])
        done = first.run(*main_job.command(place), cwd=there, timeout=240)
    assert "starting epoch" not in done.stderr  # nothing had to be done again
    main_job.run(here, "local")
    assert main_job.results(there) == main_job.results(here)
