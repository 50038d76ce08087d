"""Which metrics of a run are shown, by the kind of its outputs, as short text."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from mlaas4hep_dask.journal.text import NONE, four_digits

# Key in the metrics of a split, and what people call it.
HEADLINES = {
    "binary": ("auc", "AUC"),
    "classes": ("accuracy", "accuracy"),
    "regression": ("r2", "R²"),
    "reconstruction": ("r2", "R²"),
}
_TARGET_METRICS = (("rmse", "RMSE"), ("mae", "MAE"), ("bias", "bias"))

_ERRORS = (("mean", "mean"), ("median", "median"), ("quantile_95", "95 % below"))


def kind_of(summary: Mapping[str, Any]) -> str:
    """The kind of outputs that a summary is about."""
    kind = (summary.get("outputs") or {}).get("kind")
    return kind if kind in HEADLINES else "binary"


def metric_rows(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Name and value of the metrics of the test events."""
    test = summary.get("test") or {}
    rows = [("loss", four_digits(test.get("loss")))]
    kind = kind_of(summary)
    if kind == "regression":
        rows.append(("R²", four_digits(test.get("r2"))))
        for name, metrics in (test.get("targets") or {}).items():
            shown = [f"{title} {short(metrics.get(key))}" for key, title in _TARGET_METRICS]
            rows.append((name, ", ".join(shown)))
        return rows
    if kind == "reconstruction":
        rows.append(("R²", four_digits(test.get("r2"))))
        for name, errors in (test.get("errors") or {}).items():
            shown = [f"{title} {short(errors.get(key))}" for key, title in _ERRORS]
            rows.append((f"error of {name}", ", ".join(shown)))
        return rows
    area = four_digits(test.get("auc"))
    if area == NONE and (absent := _absent_classes(summary)):
        area += f" (no test event of {', '.join(absent)})"
    rows.append(("AUC" if kind == "binary" else "mean AUC", area))
    rows.append(("accuracy", four_digits(test.get("accuracy"))))
    by_class = test.get("auc_by_class") or {}
    rows += [(f"AUC {name}", four_digits(area)) for name, area in by_class.items()]
    return rows


def _absent_classes(summary: Mapping[str, Any]) -> list[str]:
    """The classes that no test event with a weight is of."""
    names = (summary.get("outputs") or {}).get("classes") or []
    matrix = (summary.get("test") or {}).get("confusion") or []
    return [name for name, row in zip(names, matrix, strict=False) if not any(row)]


def short(value: float | None) -> str:
    """Four significant digits, or ``none``."""
    return f"{value:.4g}" if value is not None and math.isfinite(value) else NONE
