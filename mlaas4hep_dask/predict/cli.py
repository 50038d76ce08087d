"""The command line: ``mlaas4hep predict RUN/bundle files…``."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from mlaas4hep_dask.cluster import cool_down, warm_up
from mlaas4hep_dask.command import (
    Verb,
    announce,
    count_option,
    line_of,
    process,
    start_log,
    status,
    verbose_option,
    version_option,
    words_of,
)
from mlaas4hep_dask.errors import ConfigError
from mlaas4hep_dask.formats import OnBadFile, RootFormat
from mlaas4hep_dask.places import LOCAL, PLACES, SYSTEMS, VARIABLE

if TYPE_CHECKING:
    from mlaas4hep_dask.journal import Scores
    from mlaas4hep_dask.predict.scoring import Predicted

NAME = "python -m mlaas4hep_dask.predict"
BRANCHES = "--branches"


class _Predict(Verb):
    """The verb, whose option ``--branches`` takes all words up to the next option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take the options."""
        return super().parse_args(ctx, spread(args, option=BRANCHES))


def spread(arguments: Sequence[str], *, option: str) -> list[str]:
    """Arguments in which the option is repeated before each of its values: click takes one each."""
    repeated: list[str] = []
    is_open = is_first = False
    for argument in arguments:
        if argument.startswith("-"):
            is_open = is_first = argument == option
        elif is_open and not is_first:
            repeated.append(option)
        else:
            is_first = False
        repeated.append(argument)
    return repeated


@click.command(
    "predict",
    cls=_Predict,
    short_help="Score all events of files with the model of a bundle.",
    examples=(
        "RUN/bundle data.root --output scores.root",
        "RUN/bundle 'data/*.root' --output scores.parquet --branches 'MC*'",
        "RUN/bundle @files.txt --output scores.root --on-bad-file skip",
        "RUN/bundle @files.txt --output scores.root --cluster slurm --site our-site.yaml --detach",
    ),
    interrupted="interrupted; nothing was written",
)
@click.argument("bundle", metavar="BUNDLE", type=click.Path())
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path())
@click.option(
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A .root or .parquet file.",
)
@click.option(
    "--root-format",
    type=click.Choice(get_args(RootFormat)),
    default="auto",
    show_default=True,
    help="What a .root output holds; auto is a TTree of up to 500 branches.",
)
@click.option("--overwrite", is_flag=True, help="Replace an existing output.")
@click.option(
    "--tree", metavar="NAME", help="Tree in the files; by default that of the training data."
)
@click.option(
    BRANCHES,
    multiple=True,
    metavar="PATTERN...",
    help="Branches to copy beside run and event numbers; put them after the files.",
)
@count_option("--max-events", "Score only the first N events.")
@click.option(
    "--on-bad-file",
    type=click.Choice(get_args(OnBadFile)),
    default="error",
    show_default=True,
    help="What happens when a file cannot be read.",
)
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY.PATH=VALUE",
    help="Set a key of the sections reading and cluster, as in dataset.yaml, or friends; may be "
    "repeated.",
)
@click.option(
    "--decode",
    is_flag=True,
    help="The model gives rows like its input: write the jagged events they stand for.",
)
@click.option(
    "--suffix", default="", metavar="TEXT", help="Appended to the names of decoded branches."
)
@click.option(
    "--cluster",
    metavar="ADDRESS",
    help=f"{', '.join(PLACES)}, or the tcp:// address of a Dask scheduler (same as --set "
    f"cluster.address=…).  [default: {LOCAL}]",
)
@click.option(
    "--site",
    metavar="SITE",
    help="Of a batch system: a name that `mlaas4hep cluster sites` lists, or a YAML file (same as "
    "--set cluster.site=…).",
)
@count_option(
    "--workers",
    "Workers of a local cluster, one per core; of a batch system, the most (same as --set "
    "cluster.workers=…).",
)
@click.option(
    "--detach",
    is_flag=True,
    help="Begin and return: in a batch job with a batch system, else in a process of this machine.",
)
@click.option(
    "--performance-report",
    "keeps_report",
    is_flag=True,
    help="Keep Dask's report of what the cluster did: OUTPUT.dask-report.html beside the output.",
)
@verbose_option
@version_option
@click.pass_context
def predict(context: click.Context, /, *, verbose: bool, **options: Any) -> None:
    """Score all events of files with the model of a bundle, on a Dask cluster.

    A FILE is a path, a pattern, an @list or a URL, with :dir/tree behind .root where it has another
    tree. The output keeps their order.
    """
    start_log(verbose=verbose)
    if not options["detach"]:
        announce(f"scoring with {options['bundle']} into {options['output']}")
    _predict(context, **options)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit status."""
    return status(predict, arguments, name=NAME)


def command() -> int:
    """Run the command as a process of its own, which ends when this returns."""
    return process(predict, name=NAME, clean_up=cool_down)


def _predict(
    context: click.Context,
    /,
    bundle: str,
    files: Sequence[str],
    output: Path,
    *,
    root_format: RootFormat,
    overwrite: bool,
    tree: str | None,
    branches: Sequence[str],
    max_events: int | None,
    on_bad_file: str,
    overrides: Sequence[str],
    decode: bool,
    suffix: str,
    cluster: str | None,
    site: str | None,
    workers: int | None,
    detach: bool,
    keeps_report: bool,
) -> None:
    if suffix and not decode:
        raise ConfigError("--suffix names decoded branches; give --decode too")
    if cluster in (None, LOCAL) and not detach:
        warm_up("mlaas4hep_dask.predict.preload")  # before the imports below
    from mlaas4hep_dask.bundle import open_bundle
    from mlaas4hep_dask.cluster import connect, dashboard_lines, silence
    from mlaas4hep_dask.cluster.page import performance_report
    from mlaas4hep_dask.config import given_of
    from mlaas4hep_dask.console import Console
    from mlaas4hep_dask.detached.begin import begin, require_none
    from mlaas4hep_dask.detached.head import jobs_folder
    from mlaas4hep_dask.detached.leftovers import remove_left_secrets
    from mlaas4hep_dask.detached.telling import run_of, telling
    from mlaas4hep_dask.journal import Journal, Message
    from mlaas4hep_dask.journal.read import JOURNAL
    from mlaas4hep_dask.predict.request import check_request
    from mlaas4hep_dask.predict.scoring import predict_files

    silence()
    if site is not None:
        from mlaas4hep_dask.cluster.sites.site import system_of

        cluster = system_of(site, cluster)
    given = {"address": cluster, "site": site, "workers": workers}
    words = [f"cluster.{key}={json.dumps(value)}" for key, value in given.items() if value]
    options = given_of([*overrides, *words])
    place = options.cluster
    skip = on_bad_file == "skip"
    journal, jobs = Journal(Console().hear), jobs_folder(output)
    journal.add(run_of(output.name, line_of(context), verb="predict"))
    is_told = not detach and (place.address in SYSTEMS or VARIABLE in os.environ)
    with (
        telling(journal, jobs / JOURNAL) if is_told else nullcontext(),
        tempfile.TemporaryDirectory(prefix="mlaas4hep-predict-") as folder,
    ):
        request = check_request(
            open_bundle(bundle, unpack_to=Path(folder, "bundle")),
            files,
            output,
            tree=tree,
            patterns=branches,
            skip=skip,
            overwrite=overwrite,
            root_format=root_format,
            reading=options.reading,
            friends=options.friends,
        )
        if detach:
            require_none(str(output))
            for text in begin("predict", words_of(context), cluster=place, output=str(output)):
                click.echo(text)
            return
        remove_left_secrets(output)
        report = output.with_name(f"{output.name}.dask-report.html")
        with (
            connect(place, ranks=0, jobs=jobs) as client,
            performance_report(client, report) if keeps_report else nullcontext(),
        ):
            for text in dashboard_lines(client, place):
                journal.add(Message(text))
            predicted = predict_files(
                request,
                output,
                client=client,
                max_events=max_events,
                skip=skip,
                decode=decode,
                suffix=suffix,
                overwrite=overwrite,
                root_format=root_format,
                journal=journal,
            )
        journal.add(_scores(predicted))


def _scores(predicted: Predicted) -> Scores:
    from mlaas4hep_dask.journal import Scores

    counts = predicted.counts
    numbers = {
        "events scored": predicted.num_scored,
        "events skipped": predicted.num_skipped,
        "files that did not open": sum(lost.entry_stop is None for lost in predicted.skipped),
        "scores not finite": predicted.num_not_finite,
        "objects truncated": sum(counts.truncated.values()),
        "values out of range": sum(counts.out_of_range.values()),
        "values not finite": sum(counts.not_finite.values()),
    }
    if counts.off_image or counts.shared_cell:
        numbers["objects off the image"] = sum(counts.off_image.values())
        numbers["objects in a shared cell"] = sum(counts.shared_cell.values())
    skipped = [asdict(lost) for lost in predicted.skipped]
    return Scores(str(predicted.path), predicted.form, predicted.branches, numbers, skipped)
