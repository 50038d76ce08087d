"""The command line: ``mlaas4hep run dataset.yaml``, ``check`` and ``schema``."""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlaas4hep_dask.cluster import USUAL_RANKS, cool_down, warm_up
from mlaas4hep_dask.command import (
    Verb,
    announce,
    line_of,
    may_be_cut,
    process,
    start_log,
    status,
    verbose_option,
    version_option,
    words_of,
)
from mlaas4hep_dask.places import LOCAL, PLACES

if TYPE_CHECKING:
    from mlaas4hep_dask.config import Config

REPORT = "dask-report.html"  # in the run directory
NAME = "python -m mlaas4hep_dask.run"


def _options(function: Callable[..., Any]) -> Callable[..., Any]:
    """What changes the configuration, for `run` and `check`."""
    for decorate in (
        verbose_option,
        click.option(
            "--output",
            metavar="FOLDER",
            type=click.Path(),
            help="The run directory (same as --set output=…).",
        ),
        click.option(
            "--cluster",
            metavar="ADDRESS",
            help=f"{', '.join(PLACES)}, or the tcp:// address of a Dask scheduler (same as --set "
            "cluster.address=…).",
        ),
        click.option(
            "--site",
            metavar="SITE",
            help="Of a batch system: a name that `mlaas4hep cluster sites` lists, or a YAML file "
            "(same as --set cluster.site=…).",
        ),
        click.option(
            "--set",
            "overrides",
            multiple=True,
            metavar="KEY.PATH=VALUE",
            help="Set a key of the configuration; may be repeated.",
        ),
    ):
        function = decorate(function)
    return function


@click.command(
    "run",
    cls=Verb,
    short_help="Train on the data files of dataset.yaml.",
    examples=(
        "dataset.yaml",
        "dataset.yaml --check",
        "dataset.yaml --set training.epochs=10 --set seed=3",
        "dataset.yaml --cluster tcp://login.example.org:8786",
        "dataset.yaml --cluster slurm --site our-site.yaml --detach",
    ),
    interrupted="interrupted; the same command takes the run up again",
)
@click.argument("dataset", metavar="dataset.yaml", required=False, type=click.Path())
@_options
@click.option(
    "--check",
    is_flag=True,
    help="Check everything that can be checked without a cluster, print the plan.",
)
@click.option(
    "--detach",
    is_flag=True,
    help="Begin the run and return: in a batch job with a batch system, else in a process of this "
    "machine.",
)
@click.option(
    "--performance-report",
    "keeps_report",
    is_flag=True,
    help="Keep Dask's report of what the cluster did: dask-report.html in the run directory.",
)
@click.option("--schema", is_flag=True, help="Print the JSON schema of dataset.yaml.")
@version_option
@click.pass_context
def run(
    context: click.Context,
    /,
    dataset: str | None,
    *,
    check: bool,
    detach: bool,
    keeps_report: bool,
    schema: bool,
    verbose: bool,
    **changes: Any,
) -> None:
    """Train on the data files of dataset.yaml: plan, specs, training, export and report."""
    start_log(verbose=verbose)
    if schema:
        _schema()
    elif dataset is None:
        raise click.UsageError("give a dataset.yaml, or --schema", context)
    elif check:
        _check(dataset, **changes)
    elif detach:
        _detach(dataset, context, **changes)
    else:
        announce(f"running {dataset}")
        if changes["cluster"] in (None, LOCAL):
            # Before the imports below, which it then runs beside; where all cores will train.
            warm_up(trains=len(os.sched_getaffinity(0)) <= USUAL_RANKS)
        _run(_loaded(dataset, **changes), line_of(context), keeps_report=keeps_report)


@click.command(
    "check",
    cls=Verb,
    short_help="Check dataset.yaml and its files, without a cluster.",
    examples=("dataset.yaml", "dataset.yaml --set tree=events"),
)
@click.argument("dataset", metavar="dataset.yaml", type=click.Path())
@_options
def check(dataset: str, *, verbose: bool, **changes: Any) -> None:
    """Check everything that can be checked without a cluster, and print the plan."""
    start_log(verbose=verbose)
    _check(dataset, **changes)


@click.command(
    "schema", cls=Verb, short_help="Print the JSON schema of dataset.yaml.", examples=("",)
)
def schema() -> None:
    """Print the JSON schema of dataset.yaml, for editors."""
    _schema()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit status."""
    return status(run, arguments, name=NAME)


def command() -> int:
    """Run the command as a process of its own, which ends when this returns."""
    return process(run, name=NAME, clean_up=cool_down)


def _loaded(
    dataset: str,
    *,
    overrides: Sequence[str],
    cluster: str | None,
    site: str | None,
    output: str | None,
) -> Config:
    from mlaas4hep_dask.config import load
    from mlaas4hep_dask.run.directory import check_output
    from mlaas4hep_dask.run.work import require_start_elsewhere

    if site is not None and cluster is None:
        from mlaas4hep_dask.cluster.sites.site import system_of

        cluster = system_of(site, cluster)
    keys = {"cluster.address": cluster, "cluster.site": site, "output": output}
    changes = [f"{key}={json.dumps(value)}" for key, value in keys.items() if value is not None]
    config = load(dataset, [*overrides, *changes])
    check_output(Path(config.output))
    require_start_elsewhere(config, Path(config.output).absolute())
    return config


def _schema() -> None:
    from mlaas4hep_dask.config import json_schema

    with may_be_cut():
        click.echo(json.dumps(json_schema(), indent=2))


def _check(dataset: str, **changes: Any) -> None:
    announce(f"checking {dataset}")
    config = _loaded(dataset, **changes)
    from mlaas4hep_dask.dataset.description import description_of
    from mlaas4hep_dask.dataset.planning import check_files
    from mlaas4hep_dask.dataset.trial import first_notes, require_splits
    from mlaas4hep_dask.inputs.preflight import preflight
    from mlaas4hep_dask.run.checking import check_model
    from mlaas4hep_dask.run.method import method_of
    from mlaas4hep_dask.run.placing import code_at_its_line
    from mlaas4hep_dask.run.stages import model_of

    with code_at_its_line(config):
        model, method = model_of(config), method_of(config)
        checked = preflight(description_of(config))
        plan = check_files(checked, config.partition, config.max_events)
        require_splits(plan, config.where("split"))
        lines = check_model(config, model, method, checked, plan)
    click.echo(plan.to_text())
    for caution in config.cautions:
        click.echo(f"WARNING: {caution}")
    for note in first_notes(plan):
        click.echo(f"  note: {note}")
    for line in lines:
        click.echo(line)
    click.echo(f"{config.source or config.name}: no error found")


def _detach(dataset: str, context: click.Context, **changes: Any) -> None:
    config = _loaded(dataset, **changes)
    from mlaas4hep_dask.detached.begin import begin, require_none
    from mlaas4hep_dask.run.directory import RunDirectory
    from mlaas4hep_dask.run.stages import model_of

    model_of(config)  # what is wrong with it shows here
    require_none(config.output)
    with RunDirectory(Path(config.output).absolute()):  # else another run is writing to it
        pass
    for line in begin("run", words_of(context), cluster=config.cluster, output=config.output):
        click.echo(line)


def _run(config: Config, line: str, *, keeps_report: bool) -> None:
    gc.disable()  # what imports make stays: to look it through takes a quarter of their time
    try:
        from mlaas4hep_dask.cluster import connect, dashboard_lines, silence
        from mlaas4hep_dask.cluster.page import performance_report
        from mlaas4hep_dask.dataset import Dataset
        from mlaas4hep_dask.dataset.description import description_of
        from mlaas4hep_dask.detached.head import jobs_folder
        from mlaas4hep_dask.detached.leftovers import remove_left_secrets
        from mlaas4hep_dask.inputs.preflight import preflight
        from mlaas4hep_dask.journal import Message
        from mlaas4hep_dask.run.console import RunConsole
        from mlaas4hep_dask.run.method import method_of
        from mlaas4hep_dask.run.placing import code_at_its_line
        from mlaas4hep_dask.run.stages import fit, model_of
        from mlaas4hep_dask.run.work import work_on
    finally:
        gc.enable()

    silence()
    console = RunConsole()
    with code_at_its_line(config):
        model, method = model_of(config), method_of(config)
        checked = preflight(description_of(config))
    jobs = jobs_folder(Path(config.output))
    remove_left_secrets(Path(config.output))
    with (
        work_on(config, reporter=console, command=line) as work,
        connect(config.cluster, ranks=config.training.ranks, jobs=jobs) as client,
        performance_report(client, work.folder.path / REPORT) if keeps_report else nullcontext(),
        code_at_its_line(config),
    ):
        for text in dashboard_lines(client, config.cluster):
            work.journal.add(Message(text))
        result = fit(Dataset(config, client, checked), model=model, method=method, work=work)
    console.conclude(result.summary, result.path)
