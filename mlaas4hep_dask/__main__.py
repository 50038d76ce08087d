"""The command ``mlaas4hep``: one door to all that the package does."""

from __future__ import annotations

import sys

from mlaas4hep_dask.entry import mlaas4hep

if __name__ == "__main__":  # before the imports below, which take a while
    sys.exit(mlaas4hep())

import os
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed

import click
from click.shell_completion import get_completion_class, shell_complete

from mlaas4hep_dask import __version__
from mlaas4hep_dask.command import Group, Verb, process, status, version_option

NAME = "mlaas4hep"
COMPLETE = "_MLAAS4HEP_COMPLETE"  # the variable in which a shell asks how a line may go on
VERBS = {
    "run": "mlaas4hep_dask.run.cli:run",
    "check": "mlaas4hep_dask.run.cli:check",
    "status": "mlaas4hep_dask.follow.cli:status",
    "attach": "mlaas4hep_dask.follow.cli:attach",
    "logs": "mlaas4hep_dask.follow.cli:logs",
    "stop": "mlaas4hep_dask.follow.cli:stop",
    "specs": "mlaas4hep_dask.specs.cli:specs",
    "predict": "mlaas4hep_dask.predict.cli:predict",
    "serve": "mlaas4hep_dask.serve.cli:serve",
    "models": "mlaas4hep_dask.bundle.cli:models",
    "cluster": "mlaas4hep_dask.cluster.cli:cluster",
    "schema": "mlaas4hep_dask.run.cli:schema",
}
LIBRARIES = ("torch", "dask", "uproot", "awkward", "numpy", "numba")


@click.group(NAME, cls=Group, places=VERBS)
@version_option
def door() -> None:
    """From ROOT files to a served model: Machine Learning as a Service for high-energy physics."""


@door.command("version", cls=Verb, short_help="Print the versions that a report needs.")
def version() -> None:
    """Print the versions of this package, of Python and of the libraries that it stands on."""
    click.echo(f"mlaas4hep_dask {__version__}")
    click.echo(f"Python {platform.python_version()} on {platform.platform()}")
    for library in LIBRARIES:
        try:
            click.echo(f"{library} {installed(library)}")
        except PackageNotFoundError:
            click.echo(f"{library} is not installed")


@door.command(
    "completion",
    cls=Verb,
    short_help="Print a script that completes the words of this command.",
    examples=(
        "bash > ~/.local/share/bash-completion/completions/mlaas4hep",
        "zsh > ~/.zfunc/_mlaas4hep",
        "fish > ~/.config/fish/completions/mlaas4hep.fish",
    ),
)
@click.argument("shell", metavar="SHELL", type=click.Choice(("bash", "zsh", "fish")))
def completion(shell: str) -> None:
    """Print a script with which a shell completes verbs, options and file names.

    The SHELL is bash, zsh or fish.
    """
    shell_class = get_completion_class(shell)
    assert shell_class is not None  # of these three
    click.echo(shell_class(door, {}, NAME, COMPLETE).source())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit status."""
    return status(door, arguments, name=NAME)


def command() -> int:
    """Run the command as a process of its own, which ends when this returns."""
    if request := os.environ.get(COMPLETE):
        return shell_complete(door, {}, NAME, COMPLETE, request)
    return process(door, name=NAME, clean_up=_clean_up)


def _clean_up() -> None:
    if "mlaas4hep_dask.cluster" in sys.modules:  # else nothing was started
        from mlaas4hep_dask.cluster import cool_down

        cool_down()
