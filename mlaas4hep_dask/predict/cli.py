"""The command line: ``python -m mlaas4hep_dask.predict RUN/bundle files…``."""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from mlaas4hep_dask import __version__
from mlaas4hep_dask.cluster import cool_down, warm_up
from mlaas4hep_dask.command import announce, ended_by_signals, status_of
from mlaas4hep_dask.errors import ConfigError, MLaaSError

if TYPE_CHECKING:
    from mlaas4hep_dask.console import Console
    from mlaas4hep_dask.predict.scoring import Predicted

EPILOG = """\
examples:
  python -m mlaas4hep_dask.predict RUN/bundle data.root --output scores.root
  python -m mlaas4hep_dask.predict RUN/bundle 'data/*.root' --output scores.parquet --branches 'MC*'
  python -m mlaas4hep_dask.predict RUN/bundle @files.txt --output scores.root --on-bad-file skip

exit status: 0 success, 1 a fault of this program, 2 something you can mend, 130 interrupted,
143 terminated
"""


def parser() -> argparse.ArgumentParser:
    """The argument parser."""
    made = argparse.ArgumentParser(
        prog="python -m mlaas4hep_dask.predict",
        description="Score all events of files with the model of a bundle, on a Dask cluster.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("bundle", metavar="BUNDLE", help="RUN/bundle, or a .tar.gz of it")
    made.add_argument(
        "files",
        metavar="FILE",
        nargs="+",
        help="path, pattern, @list or URL, with :dir/tree behind .root where it has another tree; "
        "the output keeps their order",
    )
    made.add_argument(
        "--output", required=True, type=Path, metavar="FILE", help="a .root or .parquet file"
    )
    made.add_argument(
        "--root-format",
        choices=("auto", "ttree", "rntuple"),
        default="auto",
        help="what a .root output holds; auto is a TTree of up to 500 branches (%(default)s)",
    )
    made.add_argument("--overwrite", action="store_true", help="replace an existing output")
    made.add_argument(
        "--tree", metavar="NAME", help="tree in the files; by default that of the training data"
    )
    made.add_argument(
        "--branches",
        nargs="+",
        action="extend",
        default=[],
        metavar="PATTERN",
        help="branches to copy beside run and event numbers; put them after the files",
    )
    made.add_argument(
        "--max-events", type=_positive, metavar="N", help="score only the first N events"
    )
    made.add_argument(
        "--on-bad-file",
        choices=("error", "skip"),
        default="error",
        help="what happens when a file cannot be read (%(default)s)",
    )
    made.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="reading.KEY=VALUE",
        help="how files are reached and read, as in dataset.yaml; may be given several times",
    )
    made.add_argument(
        "--decode",
        action="store_true",
        help="the model gives rows like its input: write the jagged events they stand for",
    )
    made.add_argument(
        "--suffix", default="", metavar="TEXT", help="appended to the names of decoded branches"
    )
    made.add_argument(
        "--cluster",
        default="local",
        metavar="ADDRESS",
        help="local, or the tcp:// address of a Dask scheduler (%(default)s)",
    )
    made.add_argument(
        "--workers", type=_positive, metavar="N", help="workers of a local cluster; one per core"
    )
    made.add_argument("-v", "--verbose", action="store_true", help="print the library's log")
    made.add_argument("--version", action="version", version=__version__)
    return made


def _positive(text: str) -> int:
    if not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return int(text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit status."""
    options = parser().parse_args(arguments)
    logging.basicConfig(
        level=logging.INFO if options.verbose else logging.WARNING,
        format="%(levelname)s %(name)s: %(message)s",
    )
    announce(f"scoring with {options.bundle} into {options.output}")
    try:
        _predict(options)
    except MLaaSError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201  # the command line prints
        return 2
    except KeyboardInterrupt as ended:
        print("interrupted; nothing was written", file=sys.stderr)  # noqa: T201
        return status_of(ended)
    return 0


def command() -> int:
    """Run the command as a process of its own, which ends when this returns."""
    try:
        with ended_by_signals(cool_down):
            return main()
    except KeyboardInterrupt as ended:
        return status_of(ended)
    finally:
        cool_down()


def _predict(options: argparse.Namespace) -> None:
    if options.suffix and not options.decode:
        raise ConfigError("--suffix names decoded branches; give --decode too")
    if options.cluster == "local":
        warm_up("mlaas4hep_dask.predict.preload")  # before the imports below
    from pydantic import ValidationError

    from mlaas4hep_dask.bundle import open_bundle
    from mlaas4hep_dask.cluster import connect, silence
    from mlaas4hep_dask.config import Cluster, given_of
    from mlaas4hep_dask.console import Console
    from mlaas4hep_dask.predict.request import check_request
    from mlaas4hep_dask.predict.scoring import predict_files

    silence()
    try:
        cluster = Cluster(address=options.cluster, workers=options.workers)
    except ValidationError:
        raise ConfigError(
            f"--cluster: expected 'local', 'tcp://host:port' or 'tls://host:port', found "
            f"{options.cluster!r}"
        ) from None
    given = given_of(options.overrides)
    skip = options.on_bad_file == "skip"
    console = Console()
    with tempfile.TemporaryDirectory(prefix="mlaas4hep-predict-") as folder:
        request = check_request(
            open_bundle(options.bundle, unpack_to=Path(folder, "bundle")),
            options.files,
            options.output,
            tree=options.tree,
            patterns=options.branches,
            skip=skip,
            overwrite=options.overwrite,
            root_format=options.root_format,
            reading=given.reading,
            friends=given.friends,
        )
        with connect(cluster, ranks=1) as client:
            console.say(f"dashboard: {client.dashboard_link}")
            made = predict_files(
                request,
                options.output,
                client=client,
                max_events=options.max_events,
                skip=skip,
                decode=options.decode,
                suffix=options.suffix,
                overwrite=options.overwrite,
                root_format=options.root_format,
                reporter=console,
            )
    _report(made, console)


def _report(made: Predicted, console: Console) -> None:
    from rich.table import Table

    table = Table(title=f"scores in {made.path.name}", show_header=False)
    counts = made.counts
    unopened = sum(lost.entry_stop is None for lost in made.skipped)
    rows = {
        "events scored": made.num_scored,
        "events skipped": made.num_skipped,
        "files that did not open": unopened,
        "scores not finite": made.num_not_finite,
        "objects truncated": sum(counts.truncated.values()),
        "values out of range": sum(counts.out_of_range.values()),
        "values not finite": sum(counts.not_finite.values()),
    }
    if counts.off_image or counts.shared_cell:
        rows["objects off the image"] = sum(counts.off_image.values())
        rows["objects in a shared cell"] = sum(counts.shared_cell.values())
    for title, number in rows.items():
        table.add_row(title, f"{number:,}")
    console.print(table)
    console.say_skipped([asdict(lost) for lost in made.skipped])
    console.say(f"branches: {', '.join(made.branches)}")
    console.say(f"scores: {made.path} ({made.form})")
