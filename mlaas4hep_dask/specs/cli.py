"""The command line: ``mlaas4hep specs show|merge|diff``."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence

import click

from mlaas4hep_dask.command import (
    DIFFERENT,
    SUCCESS,
    Group,
    Verb,
    announce,
    arguments_of,
    may_be_cut,
    process,
    status,
    version_option,
)

NAME = "python -m mlaas4hep_dask.specs"
STATUSES = (
    "Exit status: 0 the specs are the same, 1 they differ, 2 trouble, 130 interrupted, "
    "143 terminated"
)


@click.group("specs", cls=Group, short_help="Look at specs, merge and compare them.")
@version_option
def specs() -> None:
    """Look at specs, merge and compare them.

    A FILE is a specs.json, or the folder of a run or bundle with one.
    """


@specs.command("show", cls=Verb, examples=("RUN", "RUN/bundle 'Jet_*' MET_pt", "RUN --json"))
@click.argument("file", metavar="FILE", type=click.Path())
@click.argument("patterns", metavar="[BRANCH]...", nargs=-1)
@click.option("--json", "in_json", is_flag=True, help="Print JSON.")
@click.pass_context
def show(context: click.Context, file: str, patterns: Sequence[str], *, in_json: bool) -> None:
    """Print specs as a table.

    A BRANCH is a name, in which * ? [abc] match.
    """
    _announce(context)
    from mlaas4hep_dask.specs import look

    with may_be_cut():
        look.show(file, patterns, in_json=in_json)


@specs.command("merge", cls=Verb, examples=("one two --output both.json",))
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path())
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.Path(),
    help="Write here, not to standard output.",
)
@click.option(
    "--allow-overlap",
    is_flag=True,
    help="Merge even if two of them measured the same file, whose events then count twice.",
)
@click.pass_context
def merge(
    context: click.Context, files: Sequence[str], output: str | None, *, allow_overlap: bool
) -> None:
    """Merge specs of different files into one."""
    _announce(context)
    from mlaas4hep_dask.specs import look

    with may_be_cut():
        look.merge_files(files, output, allow_overlap=allow_overlap)


def _tolerance(context: click.Context, option: click.Parameter, value: float) -> float:
    if math.isnan(value):  # which would find nothing different
        raise click.BadParameter("expected a number, found nan", context, option)
    return value


@specs.command("diff", cls=Verb, statuses=STATUSES, examples=("one two", "one two --tolerance 0.1"))
@click.argument("a", metavar="A", type=click.Path())
@click.argument("b", metavar="B", type=click.Path())
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0),
    callback=_tolerance,
    default=1e-9,
    show_default=True,
    metavar="FRACTION",
    help="Of a standard deviation, by which numbers may differ.",
)
@click.option("--json", "in_json", is_flag=True, help="Print JSON.")
@click.pass_context
def diff(context: click.Context, a: str, b: str, *, tolerance: float, in_json: bool) -> int:
    """Print every value in which two specs differ."""
    _announce(context)
    from mlaas4hep_dask.specs import look

    differ = False
    with may_be_cut():
        differ = look.diff(a, b, tolerance=tolerance, in_json=in_json)
    return DIFFERENT if differ else SUCCESS


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit status."""
    return status(specs, arguments, name=NAME)


def command() -> int:
    """Run the command as a process of its own, which ends when this returns."""
    return process(specs, name=NAME)


def _announce(context: click.Context) -> None:
    # The output is for programs too.
    announce(f"specs: {context.info_name} {arguments_of(context)}", sys.stderr)
