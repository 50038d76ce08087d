"""The command line: ``mlaas4hep cluster sites|show|check``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlaas4hep_dask.command import Group, Verb, may_be_cut, option_of, start_log, verbose_option
from mlaas4hep_dask.places import GROUPS, LOCAL, PLACES, SYSTEMS

if TYPE_CHECKING:
    from mlaas4hep_dask.cluster.check import Line

EXAMPLE = {"tls": "tls://login.example.org:8786", "tcp": "tcp://login.example.org:8786"}


@click.group("cluster", cls=Group, short_help="Look at sites: batch systems and their jobs.")
def cluster() -> None:
    """Look at sites, each a batch system with what its jobs need."""


@cluster.command("sites", cls=Verb, short_help="List the sites.", examples=("",))
def sites() -> None:
    """List the sites that come with this package: name, batch system, one sentence."""
    from mlaas4hep_dask.cluster.sites import load_site, site_names

    all_sites = [load_site(name) for name in site_names()]
    width = max(len(site.name) for site in all_sites)
    with may_be_cut():
        for site in all_sites:
            click.echo(f"{site.name:<{width}}  {site.system:<8}  {site.title}")


@cluster.command(
    "show",
    cls=Verb,
    short_help="Print the job script of a site.",
    examples=("slurm", "cern-lxplus --group trainers", "mine.yaml --group head"),
)
@click.argument("name", metavar="SITE")
@click.option(
    "--group",
    type=click.Choice((*GROUPS, "head")),
    default="readers",
    show_default=True,
    help="Of which workers, or that of a run with --detach.",
)
def show(name: str, *, group: str) -> None:
    """Print the job script, or submit file, that would be submitted.

    A SITE is a name that `sites` lists, or a YAML file. The scheduler's address, the run's name
    and the folder of its logs stand for those of a run.
    """
    from mlaas4hep_dask.cluster.sites import head_script, job_script, load_site

    site, logs = load_site(name), Path("runs/RUN.jobs/logs").absolute()
    if group == "head":
        words = ["-m", "mlaas4hep_dask", "run", "dataset.yaml", "--cluster", site.system]
        words += ["--site", name]
        script = head_script(site, words, name="RUN-head", folder=Path.cwd(), logs=logs)
    else:
        script = job_script(
            site,
            group,
            scheduler_address=EXAMPLE["tls" if site.options.tls else "tcp"],
            name=f"RUN-{group}-0",
            logs=logs,
        )
    with may_be_cut():
        click.echo(script.text.rstrip("\n"))


@cluster.command(
    "check",
    cls=Verb,
    short_help="Try one worker of each group, and say what to do.",
    examples=(
        "--cluster slurm",
        "dataset.yaml --cluster htcondor --site cern-lxplus",
        "dataset.yaml --cluster tcp://login.example.org:8786",
    ),
    interrupted="interrupted; its jobs are ended",
)
@click.argument("dataset", metavar="[dataset.yaml]", required=False, type=click.Path())
@click.option(
    "--cluster",
    "address",
    metavar="ADDRESS",
    help=f"{', '.join(PLACES)}, or the tcp:// address of a Dask scheduler; by default that of "
    "dataset.yaml, or local.",
)
@click.option("--site", metavar="SITE", help="Of a batch system: a name, or a YAML file.")
@click.option(
    "--timeout",
    metavar="SECONDS",
    type=click.FloatRange(min=1),
    default=600.0,
    show_default=True,
    help="For the workers to come; a queue may be long.",
)
@click.option("--gpus", is_flag=True, help="Trainers have to have GPUs, and NCCL has to work.")
@click.option("--json", "is_json", is_flag=True, help="Print what was found as JSON.")
@verbose_option
@click.pass_context
def check(
    context: click.Context,
    dataset: str | None,
    *,
    address: str | None,
    site: str | None,
    timeout: float,
    gpus: bool,
    is_json: bool,
    verbose: bool,
) -> None:
    """Submit one small job of each group, look at all that a run will need, and end them.

    Starts, credentials, environment and versions, ports both ways, scratch, one input file of
    dataset.yaml, and GPUs where the site asks for them. Every line that is not ok says what to do.
    The exit status is 2 if one is red.
    """
    start_log(verbose=verbose)
    from mlaas4hep_dask.cluster.attach import silence
    from mlaas4hep_dask.cluster.check import as_json, as_text, is_red
    from mlaas4hep_dask.cluster.check.checking import Asked, check_cluster
    from mlaas4hep_dask.cluster.check.input import input_of, no_input
    from mlaas4hep_dask.cluster.sites.site import system_of
    from mlaas4hep_dask.config import cluster_of, load
    from mlaas4hep_dask.dataset.description import description_of

    address = system_of(site, address)
    changes = [
        f"cluster.{key}={json.dumps(value)}"
        for key, value in (("address", address), ("site", site))
        if value is not None
    ]
    if dataset is None:
        options, input_ = cluster_of(option_of, address=address or LOCAL, site=site), no_input()
    else:
        config = load(dataset, changes)
        sections = (config.model, config.training, config.loss)
        options, input_ = config.cluster, input_of(description_of(config), *sections)
    silence()

    def tell(line: Line) -> None:
        if not is_json:
            click.echo(as_text([line]))

    jobs = Path("mlaas4hep.jobs").absolute()
    asked = Asked(options, input_, timeout, jobs, gpus)
    lines = check_cluster(asked, tell)
    if is_json:
        with may_be_cut():
            click.echo(json.dumps(as_json(lines), indent=2))
    elif jobs.is_dir() and options.address in SYSTEMS:
        click.echo(f"scripts and logs of the jobs: {jobs}")
    context.exit(2 if is_red(lines) else 0)
