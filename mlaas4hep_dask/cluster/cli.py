"""The command line: ``mlaas4hep cluster sites|show``."""

from __future__ import annotations

import click

from mlaas4hep_dask.command import Group, Verb, may_be_cut

EXAMPLE = {"tls": "tls://login.example.org:8786", "tcp": "tcp://login.example.org:8786"}


@click.group("cluster", cls=Group, short_help="Look at sites: batch systems and their jobs.")
def cluster() -> None:
    """Look at sites, each a batch system with what its jobs need."""


@cluster.command("sites", cls=Verb, short_help="List the sites.", examples=("",))
def sites() -> None:
    """List the sites that come with this package: name, batch system, one sentence."""
    from mlaas4hep_dask.cluster.sites import load_site, site_names

    found = [load_site(name) for name in site_names()]
    width = max(len(site.name) for site in found)
    with may_be_cut():
        for site in found:
            click.echo(f"{site.name:<{width}}  {site.system:<8}  {site.title}")


@cluster.command(
    "show",
    cls=Verb,
    short_help="Print the job script of a site.",
    examples=("slurm", "cern-lxplus --group trainers", "mine.yaml"),
)
@click.argument("name", metavar="SITE")
@click.option(
    "--group",
    type=click.Choice(("readers", "trainers")),
    default="readers",
    show_default=True,
    help="Of which workers.",
)
def show(name: str, *, group: str) -> None:
    """Print the job script, or submit file, that would be submitted.

    A SITE is a name that `sites` lists, or a YAML file. The scheduler's address, the run's name
    and the folder of its logs stand for those of a run.
    """
    from pathlib import Path

    from mlaas4hep_dask.cluster.sites import job_script, load_site

    site = load_site(name)
    script = job_script(
        site,
        group,
        scheduler_address=EXAMPLE["tls" if site.options.tls else "tcp"],
        name=f"RUN-{group}-0",
        logs=Path("runs/RUN/logs").absolute(),
    )
    with may_be_cut():
        click.echo(script.text.rstrip("\n"))
