"""Starts services for one command, or for a shell: ``python -m tests.services slurm htcondor``."""

import argparse
import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from .htcondor import HTCondor
from .processes import Missing
from .slurm import Slurm
from .xrootd import XRootDServer

BATCH = {"slurm": Slurm, "htcondor": HTCondor}


def main():
    options = argparse.ArgumentParser(prog="python -m tests.services", description=__doc__)
    options.add_argument("services", nargs="+", choices=BATCH, help="batch systems to start")
    options.add_argument("--nodes", type=int, default=2, help="of each batch system")
    options.add_argument("--cpus", type=int, default=2, help="that each node pretends to have")
    options.add_argument("--memory", type=int, default=4000, help="MiB of each node, likewise")
    options.add_argument("--gpus", type=int, default=0, help="that each node pretends to have")
    options.add_argument("--xrootd", type=Path, help="folder to serve as $XROOTD_URL")
    own, command = sys.argv[1:], []
    if "--" in own:
        own, command = own[: own.index("--")], own[own.index("--") + 1 :]
    given = options.parse_args(own)
    size = {"num_nodes": given.nodes, "cpus": given.cpus, "memory": given.memory}
    with ExitStack() as services:
        for name in given.services:
            service = services.enter_context(BATCH[name](**size, gpus=given.gpus))
            os.environ.update(service.environment)
        if given.xrootd is not None:
            server = XRootDServer(given.xrootd.resolve())
            services.callback(server.end)
            os.environ["XROOTD_URL"] = server.url
        return subprocess.run(command or [os.environ.get("SHELL", "/bin/sh")]).returncode


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Missing as reason:
        sys.exit(str(reason))
