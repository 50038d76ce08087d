"""Looks at specs in files: prints them, merges them and compares them."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from mlaas4hep_dask.errors import SpecsError, did_you_mean
from mlaas4hep_dask.patterns import any_matches, matches
from mlaas4hep_dask.specs.compare import Difference, differences, numbers
from mlaas4hep_dask.specs.precision import precision_notes
from mlaas4hep_dask.specs.specs import Specs, merge

WIDTH = 240  # of a table that is not printed on a terminal


def read(name: str) -> Specs:
    """Specs of a file, or of the folder of a run or bundle."""
    path = Path(name)
    return Specs.read(path / "specs.json" if path.is_dir() else path)


def show(file: str, patterns: Sequence[str], *, in_json: bool) -> None:
    """Print specs as tables, or as JSON.

    Parameters
    ----------
    file : str
        A specs.json, or the folder of a run or bundle with one.
    patterns : sequence of str
        Branches, with wildcards; all when there are none.
    in_json : bool
        Whether to print JSON.

    Raises
    ------
    SpecsError
        When the file cannot be read, or no branch has one of the names.
    """
    specs = read(file)
    names = _chosen(specs, patterns)
    if in_json:
        sys.stdout.write(json.dumps(as_json(specs, names), indent=1) + "\n")
        return
    table = Table(title=f"specs of {specs.num_events:,} events", title_justify="left")
    heads = ["branch", "kind", "dtype", "objects", "unit", "values", "not finite"]
    heads += ["min", "25 %", "50 %", "75 %", "max", "mean", "std"]
    is_subset = specs.coverage < 1.0
    if is_subset:
        heads += ["outside", "error of mean"]
    for place, head in enumerate(heads):
        table.add_column(head, justify="left" if place in (0, 1, 2, 4) else "right")
    for name in names:
        entry = specs.branches[name]
        branch, moments = entry.branch, entry.moments
        objects = (
            "" if branch.collection is None else str(specs.max_multiplicity(branch.collection))
        )
        cells = [name, branch.kind, branch.dtype, objects, branch.unit or ""]
        cells += [f"{moments.num_values:,}", f"{moments.num_values - moments.num_finite:,}"]
        cells += [_brief(value) for value in numbers(entry).values()]
        if is_subset:
            cells += [_brief(specs.outside(name)), _brief(specs.mean_error(name))]
        table.add_row(*cells)
    console = _console()
    console.print(table)
    samples = Table()
    for head in ("sample", "read", "selected", "sum of weights", "unread"):
        samples.add_column(head, justify="left" if head == "sample" else "right")
    for name, sample in specs.samples.items():
        weights = _brief(sample.sum_weights)
        texts = (f"{sample.num_read:,}", f"{sample.num_selected:,}", weights)
        samples.add_row(name, *texts, f"{sample.num_unread:,}")
    console.print(samples)
    errors = [specs.branches[name].rank_error() for name in names]
    largest = max((error for error in errors if error == error), default=0.0)
    console.print(
        f"{len(specs.provenance.get('files', {})):,} files, {specs.coverage:.2%} of the events "
        f"read; quantiles have an error in rank of at most {largest:.2%}"
    )
    for note in precision_notes(specs.branches[name] for name in names):
        console.print(note)


def as_json(specs: Specs, names: Sequence[str]) -> dict[str, Any]:
    """What `show` prints, as JSON values."""
    branches = {}
    for name in names:
        entry = specs.branches[name]
        record = {**asdict(entry.branch), **entry.moments.as_json(), **numbers(entry)}
        for key in ("name", "squares", "sums"):
            record.pop(key, None)
        error = entry.rank_error()
        record["rank_error"] = error if error == error else None  # NaN without a draw
        record |= {"outside": specs.outside(name), "mean_error": specs.mean_error(name)}
        branches[name] = record
    return {
        "num_events": specs.num_events,
        "coverage": specs.coverage,
        "branches": branches,
        "multiplicities": {name: list(numbers) for name, numbers in specs.multiplicities.items()},
        "samples": {name: asdict(sample) for name, sample in specs.samples.items()},
        "provenance": dict(specs.provenance),
    }


def _chosen(specs: Specs, patterns: Sequence[str]) -> list[str]:
    names = sorted(specs.branches)
    if not patterns:
        return names
    for pattern in patterns:
        if not any(matches(pattern, name) for name in names):
            near = did_you_mean(pattern, names)
            raise SpecsError(f"no branch is called {pattern!r}{near}", branch=pattern)
    return [name for name in names if any_matches(patterns, name)]


def merge_files(files: Sequence[str], output: str | None, *, allow_overlap: bool) -> None:
    """Merge specs as if their events had been measured together.

    Parameters
    ----------
    files : sequence of str
        As in `show`.
    output : str or None
        The file to write; None is standard output.
    allow_overlap : bool
        Whether two may have measured the same file, whose events then count twice.

    Raises
    ------
    SpecsError
        When a file cannot be read, merged with the others or written.
    """
    parts = [(name, read(name)) for name in files]
    if not allow_overlap:
        _require_distinct(parts)
    # A digest or version that only some share tells nothing of the whole. Files add up, and what
    # was selected has to be the same: `merge` refuses it otherwise.
    keys = {key for _, part in parts for key in part.provenance} - {"files", "events"}
    shared = {
        key
        for key in keys
        if all(part.provenance.get(key) == parts[0][1].provenance.get(key) for _, part in parts)
    }
    has_events = any("events" in part.provenance for _, part in parts)
    merged = Specs()
    for name, part in parts:
        provenance = {
            key: part.provenance[key] for key in shared | ({"files"} & part.provenance.keys())
        }
        if has_events:
            provenance["events"] = part.provenance.get("events", {})
        try:
            merged = merge(merged, replace(part, provenance=provenance))
        except SpecsError as error:
            raise SpecsError(f"{name}: {error}", file=name) from error
    if output is None:
        sys.stdout.write(merged.to_json())
    else:
        _write(Path(output), merged.to_json())


def _require_distinct(parts: Sequence[tuple[str, Specs]]) -> None:
    owner: dict[str, tuple[int, str]] = {}
    for number, (name, part) in enumerate(parts):
        for file, uuid in part.provenance.get("files", {}).items():
            other, earlier = owner.setdefault(uuid, (number, file))
            if other != number:
                raise SpecsError(
                    f"{name} measured {file}, and so did {parts[other][0]} (as {earlier}): its "
                    "events would count twice; --allow-overlap merges all the same",
                    file=name,
                )


def _write(path: Path, text: str) -> None:
    part = None
    try:
        handle, part = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.absolute().parent)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(part).chmod(0o644)
        Path(part).replace(path)
    except OSError as error:
        if part is not None:
            Path(part).unlink(missing_ok=True)
        raise SpecsError(f"{path}: cannot be written ({error.strerror})", file=str(path)) from error


def diff(a: str, b: str, *, tolerance: float, in_json: bool) -> bool:
    """Print where two specs differ; whether they do.

    Parameters
    ----------
    a, b : str
        As in `show`.
    tolerance : float
        Fraction of a standard deviation by which numbers may differ.
    in_json : bool
        Whether to print JSON.

    Raises
    ------
    SpecsError
        When a file cannot be read.
    """
    rows_apart = differences(read(a), read(b), tolerance=tolerance)
    if in_json:
        rows = [asdict(difference) for difference in rows_apart]
        sys.stdout.write(json.dumps({"same": not rows_apart, "differences": rows}, indent=1) + "\n")
    elif rows_apart:
        _console().print(_difference_table(rows_apart, a, b))
    return bool(rows_apart)


def _difference_table(differences: Sequence[Difference], a: str, b: str) -> Table:
    table = Table(title=f"{len(differences)} differences", title_justify="left")
    for head in ("", "value", a, b, "shift / std"):
        table.add_column(head, justify="left" if head in ("", "value") else "right")
    for entry in differences:
        shift = "" if entry.shift is None else f"{entry.shift:+.3g}"
        table.add_row(entry.place, entry.what, _brief(entry.a), _brief(entry.b), shift)
    return table


def _console() -> Console:
    console = Console(highlight=False, markup=False)
    return console if console.is_terminal else Console(highlight=False, markup=False, width=WIDTH)


def _brief(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list) and not all(isinstance(number, int) for number in value):
        return "; ".join(map(str, value))  # conditions
    if isinstance(value, list) and value:
        return f"{sum(value):,} events up to {len(value) - 1}"
    return f"{value:,}" if isinstance(value, int) else str(value or "-")
