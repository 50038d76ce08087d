"""How well a model does on the test events: figures and tables of the run report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mlaas4hep_dask.journal.text import NONE
from mlaas4hep_dask.report.axes import NUM_COLOURS
from mlaas4hep_dask.report.charts import roc
from mlaas4hep_dask.report.figures import Line, roc_curves, step_histogram
from mlaas4hep_dask.report.headlines import metric_rows, objective_of
from mlaas4hep_dask.report.quantities import DASH, fixed, is_number, mapping, ratio, sequence

NUM_RESIDUALS = 12  # branches of a reconstruction whose residuals are drawn


def results(summary: Mapping[str, Any]) -> dict[str, Any]:
    """What the report shows of the test events: figures of whatever the metrics hold."""
    objective, test = objective_of(summary), mapping(summary, "test")
    key, metric = objective.headline
    curve = roc(test)
    residuals = _worst_first(test)[:NUM_RESIDUALS] or mapping(test, "residuals")
    figures = [
        *sequence(curve, "figures"),
        *_curves(test),
        *_errors(test),
        *_residuals(test, residuals, axis=objective.residual_axis),
    ]
    return {
        "has_classes": objective.has_classes,
        "title": objective.title,
        "link": objective.link,
        "metric": metric,
        "key": key,
        "value": test.get(key),
        "rows": [(name, value.replace(NONE, DASH, 1)) for name, value in metric_rows(summary)]
        if test
        else [],
        "figures": figures,
        "working_points": sequence(curve, "working_points"),
        "confusion": _confusion(summary),
        "branches": [
            {"name": name, **mapping(mapping(test, "branches"), name)}
            for name in _worst_first(test)
        ],
    }


def _curves(test: Mapping[str, Any]) -> list[str]:
    areas = mapping(test, "auc_by_class")
    lines = [
        Line(
            f"{name}, AUC {fixed(areas.get(name))}",
            sequence(curve, "false_positive_rate"),
            sequence(curve, "true_positive_rate"),
        )
        for name, curve in mapping(test, "roc_by_class").items()
        if sequence(curve, "true_positive_rate")
    ]
    return [
        roc_curves(
            part,
            title="ROC curve of each class against all others",
            x_label="efficiency for the other classes",
            y_label="efficiency for the class",
        )
        for part in (lines[i : i + NUM_COLOURS] for i in range(0, len(lines), NUM_COLOURS))
    ]


def _residuals(test: Mapping[str, Any], names: Iterable[str], axis: str) -> list[str]:
    histograms = [(name, mapping(mapping(test, "residuals"), name)) for name in names]
    return [
        step_histogram(
            sequence(histogram, "edges"),
            {"test": sequence(histogram, "counts")},
            title=f"Residuals of {name}",
            x_label=axis.format(name),
            y_label="share per unit",
            legend=False,
        )
        for name, histogram in histograms
    ]


def _errors(test: Mapping[str, Any]) -> list[str]:
    """The distribution of the reconstruction error of events, by sample."""
    histogram = mapping(test, "error_distribution")
    if not histogram:
        return []
    return [
        step_histogram(
            sequence(histogram, "edges"),
            mapping(histogram, "counts"),
            title="Reconstruction error of the events of each sample",
            x_label="log10 of the reconstruction error",
            y_label="share per unit",
        )
    ]


def _worst_first(test: Mapping[str, Any]) -> list[str]:
    """Branches of a reconstruction by R², those without one last."""
    shares = {name: m.get("r2") for name, m in mapping(test, "branches").items()}
    return sorted(shares, key=lambda n: (not is_number(shares[n]), shares[n] or 0.0, n))


def _confusion(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Sums of weights by true and predicted class, and their share of the true class."""
    names = sequence(mapping(summary, "outputs"), "classes")
    matrix: Sequence[Sequence[Any]] = sequence(mapping(summary, "test"), "confusion")
    if not matrix or len(matrix) != len(names):
        return {}
    rows = []
    for number, (name, cells) in enumerate(zip(names, matrix, strict=True)):
        total = sum(cell for cell in cells if is_number(cell))
        shares = [ratio(cell, total) for cell in cells]
        rows.append(
            {
                "name": name,
                "cells": [
                    {
                        "sum": cell,
                        "percent": None if share is None else 100 * share,
                        "is_right": place == number,
                    }
                    for place, (cell, share) in enumerate(zip(cells, shares, strict=True))
                ],
            }
        )
    return {"names": names, "rows": rows}
