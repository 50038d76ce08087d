"""A Dask scheduler and workers in hosts of tests, as an operator starts them there."""

import json
import os
import subprocess
import sys
from contextlib import ExitStack, contextmanager

from services.processes import wait_until


class DaskOnHosts:
    """A scheduler in a host, and workers; made by `dask_on`.

    Attributes
    ----------
    address : str
        Of the scheduler.
    workers : dict of str to Popen
        By name.
    """

    def __init__(self, stack, host, folder, environment):
        self._stack = stack
        self._environment = {**os.environ, **environment}
        self._folder = folder
        self._protocol = "tls" if environment else "tcp"
        self._file, self._log = folder / "scheduler.json", folder / "dask.log"
        self._said = stack.enter_context(self._log.open("wb"))
        self.workers = {}
        scheduler = self._start("scheduler", host, "--port", "0")

        def address():
            assert scheduler.poll() is None, self._log.read_text()
            try:
                return json.loads(self._file.read_text())["address"]
            except (FileNotFoundError, json.JSONDecodeError):  # not there, or not yet whole
                return None

        self.address = wait_until(address, "the scheduler listens", log=self._log)

    def add(self, host, name):
        """Start a worker."""
        options = ["--nthreads", "1", "--no-nanny", "--local-directory", str(self._folder)]
        self.workers[name] = self._start("worker", host, "--name", name, *options)

    def _start(self, kind, host, *options):
        command = [
            *(sys.executable, "-m", f"distributed.cli.dask_{kind}"),
            *("--host", f"{self._protocol}://{host.address}", "--scheduler-file", str(self._file)),
            # Without a dashboard they serve pages all the same, without certificates.
            *("--no-dashboard", "--dashboard-address", "127.0.0.1:0"),
        ]
        process = host.popen(
            [*command, *options],
            env=self._environment,
            stdout=self._said,
            stderr=subprocess.STDOUT,
        )
        self._stack.enter_context(process)
        self._stack.callback(process.kill)
        return process


@contextmanager
def dask_on(hosts, workers, folder, *, environment):
    """A scheduler in the first of some hosts, and workers.

    Parameters
    ----------
    workers : sequence of tuple
        A host and a name for each.
    environment : dict of str to str
        Of all: certificates and settings of Dask.
    """
    with ExitStack() as stack:
        dask = DaskOnHosts(stack, hosts[0], folder, environment)
        for host, name in workers:
            dask.add(host, name)
        yield dask
