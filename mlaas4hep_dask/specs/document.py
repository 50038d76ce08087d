"""The text of specs.json."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from operator import index
from typing import Any

import numpy as np

from mlaas4hep_dask.errors import SpecsError
from mlaas4hep_dask.events.events import Branch
from mlaas4hep_dask.specs.branch import BranchSpecs
from mlaas4hep_dask.specs.draw import NO_CLASS, Draw, from_text, to_text
from mlaas4hep_dask.specs.moments import Moments
from mlaas4hep_dask.specs.sample import SampleSpecs

FORMAT = "mlaas4hep_dask/specs"
VERSION = 2
READABLE = (1, 2)  # version 1 has no draws, and no quantiles


def text_of(
    *,
    branches: Mapping[str, BranchSpecs],
    multiplicities: Mapping[str, tuple[int, ...]],
    samples: Mapping[str, SampleSpecs],
    draws: Mapping[str, Draw],
    provenance: Mapping[str, Any],
    uncertainties: Mapping[str, Mapping[str, float]],
) -> str:
    """Text of specs.json: one branch per line, sorted, so that two can be compared.

    Parameters
    ----------
    branches, multiplicities, samples, draws, provenance : mapping
        Those of the specs, with all drawn values by ascending key.
    uncertainties : mapping of str to mapping of str to float
        By branch, what is added for a reader; empty for specs of all events.
    """
    sections: dict[str, dict[str, Any]] = {
        "branches": {
            name: {
                "kind": entry.branch.kind,
                "dtype": entry.branch.dtype,
                "collection": entry.branch.collection,
                "unit": entry.branch.unit,
                **entry.moments.as_json(),
                "transformed": {key: each.as_json() for key, each in entry.transformed.items()},
                **uncertainties.get(name, {}),
            }
            for name, entry in sorted(branches.items())
        },
        "multiplicities": {name: list(h) for name, h in sorted(multiplicities.items())},
        "samples": {name: sample.as_json() for name, sample in sorted(samples.items())},
        "draws": {
            name: {"limit": draw.limit, "keys": to_text(draw.keys), **_classes_of(draw)}
            for name, draw in sorted(draws.items())
        },
        "drawn": {
            name: to_text(entry.drawn)
            for name, entry in sorted(branches.items())
            if entry.group in draws
        },
    }
    lines = [f'"format": "{FORMAT}"', f'"version": {VERSION}']
    for title, entries in sections.items():
        rows = ",\n".join(
            f"  {json.dumps(key)}: {json.dumps(entry, allow_nan=False)}"
            for key, entry in entries.items()
        )
        lines.append(f'"{title}": {{\n{rows}\n}}' if rows else f'"{title}": {{}}')
    origin = json.dumps(provenance, indent=1, sort_keys=True, allow_nan=False)
    lines.append(f'"provenance": {origin}')
    return "{\n" + ",\n".join(lines) + "\n}\n"


def parts_of(text: str, *, source: str) -> dict[str, Any]:
    """The parameters of the `Specs` that a text of specs.json describes.

    Raises
    ------
    SpecsError
        When the text is not specs of a version that this package reads.
    """
    try:
        data = json.loads(text)
        if data["format"] != FORMAT or data["version"] not in READABLE:
            raise SpecsError(
                f"{source}: format {data['format']!r} version {data['version']}; "
                f"this version reads {FORMAT!r} versions {' and '.join(map(str, READABLE))}",
                file=source,
            )
        has_draws = data["version"] > 1
        draw_entries = data["draws"] if has_draws else {}
        value_texts = data["drawn"] if has_draws else {}
        draws = {name: _draw_from(entry) for name, entry in draw_entries.items()}
        branches = {
            name: _branch_from(name, entry, draws, value_texts)
            for name, entry in data["branches"].items()
        }
        samples = {name: SampleSpecs.from_json(entry) for name, entry in data["samples"].items()}
        multiplicities = {name: tuple(map(index, h)) for name, h in data["multiplicities"].items()}
        for specs in branches.values():
            if (collection := specs.branch.collection) is not None:
                _ = multiplicities[collection]
        return {
            "branches": branches,
            "multiplicities": multiplicities,
            "samples": samples,
            "provenance": _provenance_from(data["provenance"]),
            "draws": draws,
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SpecsError(f"{source}: not a specs file ({error!r})", file=source) from error


def _classes_of(draw: Draw) -> dict[str, str]:
    """The classes of drawn events, if any is known."""
    classes = draw.classes
    return {"classes": to_text(classes)} if (classes != NO_CLASS).any() else {}


def _draw_from(entry: dict[str, Any]) -> Draw:
    keys = from_text(entry["keys"], "uint64")
    limit = index(entry["limit"])
    if not 0 <= limit < 2**64 or np.any(keys[1:] < keys[:-1]) or np.any(keys >= np.uint64(limit)):
        raise ValueError("keys of a draw are not ascending below its limit")
    if "classes" not in entry:
        return Draw(limit, keys)
    classes = from_text(entry["classes"], "uint8")
    if classes.size != keys.size:
        raise ValueError(f"{classes.size} classes for {keys.size} keys of a draw")
    return Draw(limit, keys, classes)


def _branch_from(
    name: str, entry: dict[str, Any], draws: Mapping[str, Draw], value_texts: Mapping[str, str]
) -> BranchSpecs:
    branch = Branch(name, entry["kind"], entry["dtype"], entry["collection"], entry["unit"])
    transformed = {
        key: _moments_from(name, numbers) for key, numbers in entry.get("transformed", {}).items()
    }
    specs = BranchSpecs(branch, _moments_from(name, entry), np.zeros(0, branch.dtype), transformed)
    if (draw := draws.get(specs.group)) is None:
        return specs
    values = from_text(value_texts[name], branch.dtype)
    if len(values) != len(draw):
        raise ValueError(f"{len(values)} values of branch {name!r} for {len(draw)} keys")
    return replace(specs, drawn=values)


def _moments_from(name: str, entry: dict[str, Any]) -> Moments:
    moments = Moments.from_json(entry)
    numbers = [moments.mean, moments.squares, *map(index, moments[:4])]
    numbers += [value for value in (moments.min, moments.max) if value is not None]
    if not all(map(math.isfinite, numbers)):
        raise ValueError(f"moments of branch {name!r} are not finite")
    if min(moments.squares, *moments[:4]) < 0:
        raise ValueError(f"moments of branch {name!r} are negative")
    return moments


def _provenance_from(entry: dict[str, Any]) -> dict[str, Any]:
    """The provenance, whose sections that others rely on are mappings."""
    for key in ("files", "events", "versions"):
        if not isinstance(entry.get(key, {}), dict):
            raise TypeError(f"{key!r} of the provenance is no mapping")
    return dict(entry)
