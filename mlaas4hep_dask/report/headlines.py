"""The metrics of a run as short text, by what its network learned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlaas4hep_dask.errors import EncodeError
from mlaas4hep_dask.journal.text import four_digits
from mlaas4hep_dask.objective import BINARY, Objective, objective_from_json


def objective_of(summary: Mapping[str, Any]) -> Objective:
    """What the network of a summary learned; two classes where it does not tell."""
    try:
        return objective_from_json(summary.get("outputs") or {})
    except EncodeError:  # that of a run that stopped early
        return BINARY


def metric_rows(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Name and value of the metrics of the test events."""
    test = summary.get("test") or {}
    return [("loss", four_digits(test.get("loss"))), *objective_of(summary).metric_rows(test)]
