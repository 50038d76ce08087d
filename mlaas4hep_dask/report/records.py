"""The records of a run directory that the report is made of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mlaas4hep_dask.errors import RecordError
from mlaas4hep_dask.journal import read
from mlaas4hep_dask.journal.read import JOURNAL
from mlaas4hep_dask.report.page import render_page
from mlaas4hep_dask.report.unfinished import summary_so_far
from mlaas4hep_dask.specs import Specs

CONFIG = "config.yaml"
METRICS = "metrics.json"
PLAN = "plan.json"
SPECS = "specs.json"
DISTRIBUTIONS = "distributions.json"
IMAGES = "images.json"


def render(run_directory: str | Path) -> str:
    """Text of the report of a run, from the files in its folder.

    Parameters
    ----------
    run_directory : str or Path
        The folder that the run wrote. Of a run that has ended, ``metrics.json``, ``specs.json``,
        ``distributions.json`` and, if it had images, ``images.json`` are drawn. Of one that is at
        work, has failed or was killed, its ``journal.jsonl``, and what is there of the others.

    Returns
    -------
    str
        The page ``report.html`` of the run.

    Raises
    ------
    RecordError
        When the folder holds no run, or a file is absent or is no JSON.
    SpecsError
        When ``specs.json`` cannot be read.
    """
    folder = Path(run_directory)
    images = _json(folder / IMAGES) if (folder / IMAGES).exists() else None
    if (folder / METRICS).exists() or not (folder / JOURNAL).exists():
        summary, distributions = _json(folder / METRICS), _json(folder / DISTRIBUTIONS)
        return render_page(summary, _specs(folder), distributions, images)
    plan_record = _json(folder / PLAN) if (folder / PLAN).exists() else None
    specs = _specs(folder) if (folder / SPECS).exists() else None
    summary = summary_so_far(read(folder), plan_record, specs)
    if (folder / CONFIG).exists():
        summary["config_yaml"] = _text(folder / CONFIG)
    distributions = _json(folder / DISTRIBUTIONS) if (folder / DISTRIBUTIONS).exists() else {}
    return render_page(summary, specs or Specs(), distributions, images)


def _specs(folder: Path) -> Specs:
    return Specs.from_json(_text(folder / SPECS), source=str(folder / SPECS))


def _json(path: Path) -> Any:
    try:
        return json.loads(_text(path))
    except ValueError as error:
        raise RecordError(f"{path} is no JSON: {error}", file=str(path)) from error


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise RecordError(
            f"{path} cannot be read ({error.strerror}); a report needs the files of a run",
            file=str(path),
        ) from error
