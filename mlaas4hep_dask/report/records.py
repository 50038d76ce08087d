"""The records of a run directory that the report is made of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mlaas4hep_dask.errors import RecordError
from mlaas4hep_dask.report.page import render_page
from mlaas4hep_dask.specs import Specs

METRICS = "metrics.json"
SPECS = "specs.json"
DISTRIBUTIONS = "distributions.json"
IMAGES = "images.json"


def render(run_directory: str | Path) -> str:
    """Text of the report of a run, from the files in its folder.

    Parameters
    ----------
    run_directory : str or Path
        The folder that the run wrote: ``metrics.json``, ``specs.json``, ``distributions.json`` and,
        of a run with images, ``images.json``.

    Returns
    -------
    str
        The page ``report.html`` of the run.

    Raises
    ------
    RecordError
        When a file is absent or is no JSON.
    SpecsError
        When ``specs.json`` cannot be read.
    """
    folder = Path(run_directory)
    summary, distributions = _json(folder / METRICS), _json(folder / DISTRIBUTIONS)
    images = _json(folder / IMAGES) if (folder / IMAGES).exists() else None
    specs = Specs.from_json(_text(folder / SPECS))
    return render_page(summary, specs, distributions, images)


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
            f"{path} cannot be read ({error.strerror}); a report needs the files of a run that has "
            "ended",
            file=str(path),
        ) from error
