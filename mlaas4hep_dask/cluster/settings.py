"""Dask's settings that make workers fast, in one list for the workers here and in batch jobs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

_MANGLED = re.compile(r"[a-z0-9]+(?:[_-][a-z0-9]+)*")  # keys that survive in a variable's name


def dotted(nested: Mapping[str, Any], stem: str = "") -> dict[str, Any]:
    """Settings as ``{"distributed.admin.tick.interval": "500ms"}``, for `dask.config.set`.

    Parameters
    ----------
    nested : mapping
        As in a file of Dask's configuration.
    stem : str
        What the keys begin with.
    """
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        name = f"{stem}{key}"
        flat.update(dotted(value, f"{name}.") if isinstance(value, Mapping) else {name: value})
    return flat


def merged(nested: Mapping[str, Any], others: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with others over them; a list replaces a list, as in Dask."""
    result = dict(nested)
    for key, value in others.items():
        both = isinstance(result.get(key), Mapping) and isinstance(value, Mapping)
        result[key] = merged(result[key], value) if both else value
    return result


def variables(nested: Mapping[str, Any], stem: str = "DASK_") -> dict[str, str]:
    """Settings as variables of the environment, from which Dask takes them.

    A mapping with a key that a variable's name cannot hold, as one in capitals, is one variable.
    """
    by_name: dict[str, str] = {}
    for key, value in nested.items():
        name = f"{stem}{key.upper().replace('-', '_')}"
        if isinstance(value, Mapping) and all(map(_MANGLED.fullmatch, value)):
            by_name.update(variables(value, f"{name}__"))
        else:
            # Dask takes a Python literal; a shell quotes it best without apostrophes.
            by_name[name] = value if isinstance(value, str) else repr(value).replace("'", '"')
    return by_name


NESTED: dict[str, Any] = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text("utf-8"))
SETTINGS = dotted(NESTED)
