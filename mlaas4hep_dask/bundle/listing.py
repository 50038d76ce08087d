"""Lists what is in bundles, for people and for programs."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from mlaas4hep_dask.bundle.bundle import Bundle, open_bundle
from mlaas4hep_dask.journal import SPLITS

WIDTH = 120  # of a table that is not printed on a terminal


def show(paths: Sequence[Path], *, in_json: bool) -> None:
    """Print what is in bundles.

    Parameters
    ----------
    paths : sequence of Path
        Folders or archives.
    in_json : bool
        Whether to print a JSON list, and not a table for each.

    Raises
    ------
    BundleError
        When one cannot be opened, or a file of it was altered.
    """
    with tempfile.TemporaryDirectory(prefix="mlaas4hep-models-") as folder:
        documents = [
            facts(open_bundle(path, unpack_to=Path(folder, str(number))), source=path)
            for number, path in enumerate(paths)
        ]
    if in_json:
        sys.stdout.write(json.dumps(documents, indent=1) + "\n")
        return
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console = Console(highlight=False, markup=False, width=WIDTH)
    for each in documents:
        console.print(_table(each))


def facts(bundle: Bundle, *, source: Path) -> dict[str, Any]:
    """What is in an opened bundle, as JSON values.

    Parameters
    ----------
    bundle : Bundle
        Its files match their checksums: else it would not be open.
    source : Path
        Where it was found.
    """
    manifest = bundle.manifest
    return {
        "bundle": str(source),
        "name": bundle.name,
        "format": manifest["format"],
        "version": manifest["version"],
        "created": manifest.get("created"),
        "inputs": [
            {"name": branch.name, "kind": branch.kind, "dtype": branch.dtype, "unit": branch.unit}
            for branch in bundle.reads
        ],
        "shape": list(bundle.encoding.row_shape),
        "output": manifest.get("output", {}),
        "metrics": manifest.get("metrics", {}),
        "versions": {"mlaas4hep_dask": manifest.get("package"), **manifest.get("libraries", {})},
        "files": {
            member: {**recorded, "verified": True} for member, recorded in manifest["files"].items()
        },
    }


def _table(facts: Mapping[str, Any]) -> Table:
    table = Table(title=f"model {facts['name']}", title_justify="left", show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    inputs = facts["inputs"]
    rows = {
        "bundle": facts["bundle"],
        "format": f"{facts['format']}, version {facts['version']}",
        "created": facts["created"],
        f"{len(inputs)} inputs": ", ".join(map(_input, inputs)),
        "row of the network": " x ".join(map(str, facts["shape"])),
        "output": ", ".join(f"{key}: {_brief(value)}" for key, value in facts["output"].items()),
    }
    for split in SPLITS:
        values = facts["metrics"].get(split)
        if isinstance(values, Mapping):
            rows[split] = ", ".join(f"{key} {_brief(value)}" for key, value in values.items())
    rows["versions"] = ", ".join(f"{name} {number}" for name, number in facts["versions"].items())
    for title, text in rows.items():
        table.add_row(title, str(text))
    for member, recorded in facts["files"].items():
        table.add_row(member, f"sha256 {recorded['sha256']} verified")
    return table


def _input(branch: Mapping[str, Any]) -> str:
    dtype = f"{branch['dtype']}[]" if branch["kind"] == "jagged" else branch["dtype"]
    unit = f" in {branch['unit']}" if branch["unit"] else ""
    return f"{branch['name']} ({dtype}{unit})"


def _brief(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    return json.dumps(value)
