"""The command line: ``mlaas4hep status|attach|logs|stop RUN``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from mlaas4hep_dask.command import Verb, count_option, may_be_cut

LINES = 10  # of each log

run_argument: Callable[[Callable[..., Any]], Callable[..., Any]] = click.argument(
    "folder", metavar="RUN", type=click.Path(path_type=Path)
)


@click.command(
    "status",
    cls=Verb,
    short_help="Tell how a run stands.",
    examples=("runs/single-top", "runs/single-top --json"),
)
@run_argument
@click.option("--json", "in_json", is_flag=True, help="Print JSON, for programs.")
def status(folder: Path, *, in_json: bool) -> None:
    """Tell how a run stands: state, stages, epochs, cautions, jobs.

    RUN is the run directory, or the output of predict. Its records are read, and the queue of a
    batch system is asked where that is here.
    """
    from datetime import UTC, datetime

    from mlaas4hep_dask.follow.jobs import jobs_of
    from mlaas4hep_dask.follow.page import as_json, page
    from mlaas4hep_dask.follow.standing import look

    standing, jobs = look(folder), jobs_of(folder)
    with may_be_cut():
        if in_json:
            click.echo(json.dumps(as_json(standing, jobs), indent=1))
        else:
            click.echo(page(standing, jobs, datetime.now(UTC)))


@click.command(
    "attach",
    cls=Verb,
    short_help="Print what a run prints, until it ends.",
    examples=("runs/single-top", "runs/single-top --last-stage"),
    statuses="Exit status: that of the run; 137 if it was killed, 130 interrupted, 2 something you "
    "can mend",
    interrupted="the run goes on",
)
@run_argument
@click.option("--last-stage", is_flag=True, help="Begin with the last stage.")
def attach(folder: Path, *, last_stage: bool) -> int:
    """Print what a run prints on its console, from its beginning on, until it ends.

    RUN is the run directory, or the output of predict. Ctrl-C ends this command, not the run.
    """
    from mlaas4hep_dask.follow.attach import attach

    return attach(folder, last_stage=last_stage)


@click.command(
    "logs",
    cls=Verb,
    short_help="Print the ends of the logs of a run's jobs.",
    examples=("runs/single-top", "runs/single-top --job trainers --follow"),
)
@run_argument
@click.option(
    "--job",
    "jobs",
    multiple=True,
    metavar="NAME",
    help="The id of a job, its worker, a group, or head; may be repeated.",
)
@count_option("--lines", "Of each log.", default=LINES)
@click.option("--follow", is_flag=True, help="Go on with what is written, until the run ends.")
def logs(folder: Path, *, jobs: tuple[str, ...], lines: int, follow: bool) -> None:
    """Print names, sizes and last lines of the logs of a run's batch jobs.

    RUN is the run directory, or the output of predict.
    """
    from mlaas4hep_dask.follow.logs import show

    with may_be_cut():
        show(folder, jobs, lines=lines, follow=follow)


@click.command(
    "stop",
    cls=Verb,
    short_help="End a run, wherever it works.",
    examples=("runs/single-top",),
    interrupted="interrupted; the run may go on",
)
@run_argument
def stop(folder: Path) -> int:
    """End a run and its jobs, wait until they have ended, and say what is left.

    RUN is the run directory, or the output of predict. The same command takes a run up again.
    """
    from mlaas4hep_dask.follow.stop import stop

    return stop(folder)
