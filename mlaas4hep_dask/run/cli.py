"""The command line: ``python -m mlaas4hep_dask.run dataset.yaml``."""

from __future__ import annotations

import argparse
import gc
import json
import logging
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mlaas4hep_dask import __version__
from mlaas4hep_dask.cluster import cool_down, warm_up
from mlaas4hep_dask.command import announce, ended_by_signals, status_of
from mlaas4hep_dask.errors import MLaaSError

if TYPE_CHECKING:
    from mlaas4hep_dask.config import Config

EPILOG = """\
examples:
  python -m mlaas4hep_dask.run dataset.yaml
  python -m mlaas4hep_dask.run dataset.yaml --check
  python -m mlaas4hep_dask.run dataset.yaml --set training.epochs=10 --set seed=3
  python -m mlaas4hep_dask.run dataset.yaml --cluster tcp://login.example.org:8786

exit status: 0 success, 1 a fault of this program, 2 something you can mend, 130 interrupted,
143 terminated
"""


def parser() -> argparse.ArgumentParser:
    """The argument parser."""
    made = argparse.ArgumentParser(
        prog="python -m mlaas4hep_dask.run",
        description="Train on the data files of dataset.yaml: plan, specs, training, export and "
        "report.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("dataset", nargs="?", metavar="dataset.yaml", help="the configuration")
    made.add_argument(
        "--set",
        action="append",
        default=[],
        dest="overrides",
        metavar="KEY.PATH=VALUE",
        help="set a key of the configuration; may be repeated",
    )
    made.add_argument(
        "--cluster",
        metavar="ADDRESS",
        help="local, or the tcp:// address of a Dask scheduler (same as --set cluster.address=…)",
    )
    made.add_argument(
        "--output", metavar="FOLDER", help="the run directory (same as --set output=…)"
    )
    made.add_argument(
        "--check",
        action="store_true",
        help="check everything that can be checked without a cluster, print the plan",
    )
    made.add_argument("--schema", action="store_true", help="print the JSON schema of dataset.yaml")
    made.add_argument("-v", "--verbose", action="store_true", help="print the library's log")
    made.add_argument("--version", action="version", version=__version__)
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit status."""
    made = parser()
    options = made.parse_args(arguments)
    logging.basicConfig(
        level=logging.INFO if options.verbose else logging.WARNING,
        format="%(levelname)s %(name)s: %(message)s",
    )
    if options.schema:
        from mlaas4hep_dask.config import json_schema

        print(json.dumps(json_schema(), indent=2))  # noqa: T201  # the command line prints
        return 0
    if options.dataset is None:
        made.error("give a dataset.yaml, or --schema")
    announce(f"{'checking' if options.check else 'running'} {options.dataset}")
    try:
        if not options.check and options.cluster in (None, "local"):
            warm_up()  # before the imports below, which it then runs beside
        from mlaas4hep_dask.config import load
        from mlaas4hep_dask.run.directory import check_output

        config = load(options.dataset, _overrides(options))
        check_output(Path(config.output))
        if options.check:
            return _check(config)
        line = shlex.join(["python", "-m", "mlaas4hep_dask.run", *(arguments or sys.argv[1:])])
        return _run(config, line)
    except MLaaSError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return 2
    except KeyboardInterrupt as ended:
        print("interrupted; the same command takes the run up again", file=sys.stderr)  # noqa: T201
        return status_of(ended)


def command() -> int:
    """Run the command as a process of its own, which ends when this returns."""
    try:
        with ended_by_signals(cool_down):
            return main()
    except KeyboardInterrupt as ended:  # before there was anything to take up
        return status_of(ended)
    finally:
        cool_down()
        gc.freeze()  # half a second in which the interpreter would look for garbage, to end then


def _overrides(options: argparse.Namespace) -> list[str]:
    overrides = list(options.overrides)
    if options.cluster is not None:
        overrides.append(f"cluster.address={json.dumps(options.cluster)}")
    if options.output is not None:
        overrides.append(f"output={json.dumps(options.output)}")
    return overrides


def _check(config: Config) -> int:
    from mlaas4hep_dask.dataset.plan import check_files
    from mlaas4hep_dask.dataset.trial import first_notes, require_splits
    from mlaas4hep_dask.inputs.preflight import preflight
    from mlaas4hep_dask.run.checking import check_model
    from mlaas4hep_dask.run.stages import model_of

    model = model_of(config)
    checked = preflight(config)
    plan = check_files(config, checked)
    require_splits(config, plan)
    lines = check_model(config, model, checked, plan)
    print(plan.to_text())  # noqa: T201
    for note in first_notes(plan):
        print(f"  note: {note}")  # noqa: T201
    for line in lines:
        print(line)  # noqa: T201
    print(f"{config.source or config.name}: no error found")  # noqa: T201
    return 0


def _run(config: Config, command: str) -> int:
    gc.disable()  # what imports make stays: to look it through takes a quarter of their time
    try:
        from mlaas4hep_dask.cluster import connect, silence
        from mlaas4hep_dask.dataset import Dataset
        from mlaas4hep_dask.inputs.preflight import preflight
        from mlaas4hep_dask.run.console import RunConsole
        from mlaas4hep_dask.run.stages import fit, model_of
    finally:
        gc.enable()

    silence()
    console = RunConsole()
    model = model_of(config)
    checked = preflight(config)
    with connect(config.cluster, ranks=config.training.ranks) as client:
        console.say(f"dashboard: {client.dashboard_link}")
        dataset = Dataset(config, client, checked)
        result = fit(dataset, model=model, reporter=console, command=command)
    console.table(result.summary)
    console.say(f"report: {result.report}")
    console.say(f"serve it: {result.serve_command}")
    return 0
