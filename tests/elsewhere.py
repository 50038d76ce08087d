"""A scheduler and workers that were started in another folder, by somebody else's environment."""

import json
import os
import subprocess
import sys
from contextlib import ExitStack, contextmanager

from paths import REPOSITORY
from services.processes import wait_until


def package(folder, name, version, text=""):
    """A package that is installed below a folder; the folder to be put on Python's path."""
    site = folder / "site-packages"
    (site / name).mkdir(parents=True)
    (site / name / "__init__.py").write_text(text)
    (site / f"{name}-{version}.dist-info").mkdir()
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    (site / f"{name}-{version}.dist-info" / "METADATA").write_text(metadata)
    return site


HIDE = """
import sys

class Hide:
    def find_spec(self, name, path=None, target=None):
        if name in {names!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Hide())
"""


def without(folder, *names):
    """A folder to be put on Python's path, for processes that have no modules of some names."""
    return at_start(folder, HIDE.format(names=names))


def at_start(folder, text):
    """A folder to be put on Python's path, for processes that run a text when they start."""
    folder.mkdir(parents=True)
    (folder / "sitecustomize.py").write_text(text)
    return folder


def environment(*paths):
    """Variables of a process that finds this package, and what lies in some folders."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (*paths, REPOSITORY)))}


def worker(address, folder, *options, paths=()):
    """The process of a worker."""
    command = [
        *(sys.executable, "-m", "distributed.cli.dask_worker", address, "--nthreads", "1"),
        *("--no-dashboard", "--no-nanny", "--local-directory", folder, *options),
    ]
    return subprocess.Popen(command, cwd=folder, env=environment(*paths), stderr=subprocess.DEVNULL)


@contextmanager
def cluster(folder, *, names=("one", "two"), paths=()):
    """The address of a scheduler with workers of some names; all end with the context."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "scheduler.json"
    scheduler = [
        *(sys.executable, "-m", "distributed.cli.dask_scheduler", "--no-dashboard"),
        *("--host", "127.0.0.1", "--port", "0", "--scheduler-file", file),
    ]
    with ExitStack() as stack:

        def until_the_end(process):
            stack.callback(process.wait, 30)
            stack.callback(process.terminate)
            return process

        until_the_end(
            subprocess.Popen(
                scheduler, cwd=folder, env=environment(*paths), stderr=subprocess.DEVNULL
            )
        )
        wait_until(lambda: file.exists() and file.read_text().endswith("}"), "it listens")
        address = json.loads(file.read_text())["address"]
        for name in names:
            until_the_end(worker(address, folder, "--name", name, paths=paths))
        yield address
