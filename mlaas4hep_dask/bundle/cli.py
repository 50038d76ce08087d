"""The command line: ``mlaas4hep models RUN/bundle``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from mlaas4hep_dask.command import Verb, announce, arguments_of, may_be_cut


@click.command(
    "models",
    cls=Verb,
    short_help="List what is in a bundle, and verify its files.",
    examples=("RUN/bundle", "one/bundle two.tar.gz", "RUN/bundle --json"),
)
@click.argument(
    "bundles", metavar="BUNDLE...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@click.option("--json", "in_json", is_flag=True, help="Print JSON.")
@click.pass_context
def models(context: click.Context, bundles: Sequence[Path], *, in_json: bool) -> None:
    """List the model of each bundle: its inputs, outputs, metrics and versions.

    A BUNDLE is RUN/bundle, or a .tar.gz of it. All its files are compared with their checksums; one
    that was altered is an error.
    """
    announce(f"models: {arguments_of(context)}", sys.stderr)  # the output is for programs too
    from mlaas4hep_dask.bundle import listing

    with may_be_cut():
        listing.show(bundles, in_json=in_json)
