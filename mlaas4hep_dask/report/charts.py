"""Charts of the run report: learning curves, ROC, multiplicities and inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from mlaas4hep_dask.journal import SPLITS
from mlaas4hep_dask.report.figures import Line, line_chart, roc_curves, step_histogram
from mlaas4hep_dask.report.quantities import count, fixed, is_number, mapping, ratio, sequence
from mlaas4hep_dask.specs import Specs

_MOST_BINS = 120


def learning_curves(epochs: Sequence[Mapping[str, Any]], metric: tuple[str, str]) -> list[str]:
    """Loss and one metric of each split after each epoch; nothing before the first one.

    Parameters
    ----------
    epochs : sequence of mapping
        The records of the epochs.
    metric : (str, str)
        Key of the metric in them, and its name.
    """
    if not epochs:
        return []
    figures = []
    numbers = [epoch.get("epoch") for epoch in epochs]
    for key, name in (("loss", "loss"), metric):
        lines = [
            Line(split, numbers, [mapping(epoch, split).get(key) for epoch in epochs])
            for split in SPLITS
        ]
        lines = [line for line in lines if any(map(is_number, line.y))]
        title = f"{name} of each split after each epoch"
        figures.append(line_chart(lines, title=title, x_label="epoch", y_label=name, whole_x=True))
    return figures


def roc(test: Mapping[str, Any]) -> dict[str, Any]:
    """ROC curve, background rejection, and the rejection at usual working points."""
    curve = mapping(test, "roc")
    false, true = sequence(curve, "false_positive_rate"), sequence(curve, "true_positive_rate")
    points = [(f, t) for f, t in zip(false, true, strict=False) if is_number(f) and is_number(t)]
    if not points:
        return {}
    name = f"test, AUC {fixed(test.get('auc'))}"
    rejection = line_chart(
        [Line(name, [t for _, t in points], [1 / f if f > 0 else None for f, _ in points])],
        title="Background rejection against signal efficiency",
        x_label="signal efficiency",
        y_label="background rejection (1 / efficiency)",
        x_range=(0.0, 1.0),
        log_y=True,
        size=(400, 400),
    )
    working = [(target, _background_at(points, target)) for target in (0.3, 0.5, 0.7, 0.9, 0.95)]
    return {
        "figures": [
            roc_curves(
                [Line(name, [f for f, _ in points], [t for _, t in points])],
                title="ROC curve",
                x_label="background efficiency (false positive rate)",
                y_label="signal efficiency (true positive rate)",
            ),
            rejection,
        ],
        "working_points": [
            {
                "signal": 100 * target,
                "background": 100 * background,
                "rejection": ratio(1, background),
            }
            for target, background in working
            if background is not None
        ],
    }


def _background_at(points: Sequence[tuple[float, float]], signal: float) -> float | None:
    """Background efficiency at a signal efficiency, on the straight line between two points."""
    for (f_a, t_a), (f_b, t_b) in pairwise(sorted(points)):
        if t_a <= signal <= t_b and t_a < t_b:
            return f_a + (f_b - f_a) * (signal - t_a) / (t_b - t_a)
    return None


def multiplicities(
    specs: Specs, counts: Mapping[str, Any], encode: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """The exact histogram of multiplicities of each collection, its width and its order."""
    figures = []
    for collection, histogram in sorted(specs.multiplicities.items()):
        width = -(-len(histogram) // _MOST_BINS) or 1  # multiplicities per bin
        starts = range(0, len(histogram), width)
        num_objects = sum(k * n for k, n in enumerate(histogram))
        figures.append(
            {
                "name": collection,
                "max": specs.max_multiplicity(collection),
                "mean": ratio(num_objects, sum(histogram)),
                "width": mapping(encode, "widths").get(collection),
                "sort": mapping(encode, "sort").get(collection),
                "truncated": mapping(counts, "truncated").get(collection, 0),
                "figure": step_histogram(
                    [start - 0.5 for start in range(0, len(starts) * width + 1, width)],
                    {"events": [sum(histogram[start : start + width]) for start in starts]},
                    title=f"Events by multiplicity of {collection}",
                    x_label="objects per event",
                    y_label="events",
                    density=False,
                    log=True,
                    legend=False,
                    size=(340, 200),
                ),
            }
        )
    return figures


def inputs(
    specs: Specs, distributions: Mapping[str, Any], labels: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Histograms of every branch; with two labels, the branch that separates them best first."""
    rows = [
        _input(name, histograms or {}, specs, labels)
        for name, histograms in mapping(distributions, "branches").items()
    ]
    return sorted(rows, key=lambda entry: -(entry["separation"] or 0.0))


def _input(
    name: str, histograms: Mapping[str, Any], specs: Specs, labels: Mapping[str, str]
) -> dict[str, Any]:
    figures = {}
    for key, when in (("raw", "before encoding"), ("encoded", "after encoding")):
        histogram = mapping(histograms, key)
        figures[when] = step_histogram(
            sequence(histogram, "edges"),
            {labels.get(k, k): values for k, values in _by_label(histogram, labels).items()},
            title=f"{name} {when}",
            legend=False,
            size=(200, 130),
            font=10,
        )
    raw = mapping(histograms, "raw")
    shares = {"counts": mapping(raw, "populations") or mapping(raw, "counts")}
    compared = list(_by_label(shares, labels).values())
    return {
        "name": name,
        "unit": specs.branches[name].branch.unit if name in specs.branches else None,
        "figures": figures,
        "separation": separation(*compared) if len(compared) == 2 else None,
        "outside": _outside(sequence(raw, "outside")),
    }


def _outside(numbers: Sequence[Any]) -> str:
    """How many values are not in the picture."""
    sides = zip(numbers, ("below", "above"), strict=False)
    return ", ".join(f"{count(number)} values {where}" for number, where in sides if number)


def _by_label(histogram: Mapping[str, Any], labels: Mapping[str, str]) -> dict[str, Sequence[Any]]:
    """Counts in one order of labels on the whole page, so that each keeps its colour."""
    contents = mapping(histogram, "counts")
    return {key: sequence(contents, key) for key in sorted({*labels, *contents})}


def separation(a: Sequence[float], b: Sequence[float]) -> float | None:
    """How far two histograms with the same bins differ: 0 when equal, 1 when they are disjoint.

    Half the sum of (a - b)^2 / (a + b) over the bins of the normalised histograms, the
    separation of the TMVA Users Guide (Hoecker et al., arXiv:physics/0703039).
    """
    total_a, total_b = sum(a), sum(b)
    if not (is_number(total_a) and is_number(total_b) and total_a > 0 and total_b > 0):
        return None
    pairs = [(x / total_a, y / total_b) for x, y in zip(a, b, strict=False)]
    return sum((x - y) ** 2 / (x + y) for x, y in pairs if x + y > 0) / 2
