"""A warning when a network calls every test event the same, with what may be the reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mlaas4hep_dask.report.quantities import is_number, mapping, number, sequence

MOST = 0.8  # share of the weight of one class that may be a reason
SEPARATES = 0.6  # area under a ROC curve


def one_class_notes(
    test: Mapping[str, Any], names: Sequence[str], minmax: Sequence[str], balance: str
) -> list[str]:
    """The warning, or nothing.

    Parameters
    ----------
    test : mapping of str to Any
        Metrics of the test events with their ``confusion``, true classes by predicted ones.
    names : sequence of str
        The classes.
    minmax : sequence of str
        Inputs whose values fill little of the range that `minmax` scales them by.
    balance : str
        The key ``training.balance``.
    """
    matrix: Sequence[Sequence[Any]] = sequence(test, "confusion")
    if not matrix or len(matrix) != len(names):
        return []
    true = [sum(row) for row in matrix]
    predicted = [place for place, cells in enumerate(zip(*matrix, strict=True)) if any(cells)]
    if len(predicted) != 1 or sum(map(bool, true)) < 2:
        return []
    reasons = []
    if minmax:
        reasons.append(
            f"outliers squeeze {len(minmax)} inputs that are normalised by minmax, such as "
            f"{minmax[0]} (encode.normalisation: auto does not let them)"
        )
    largest = max(true) / sum(true) if sum(true) > 0 else 0.0
    if largest >= MOST and balance == "none":
        reasons.append(
            f"{100 * largest:.3g} % of the weight is of one class (training.balance: classes)"
        )
    area = mapping(test, "auc_by_class").get(names[predicted[0]], test.get("auc"))
    if is_number(area):
        if area >= SEPARATES:
            reasons.append(
                f"its scores do tell classes apart (AUC {number(area, 3)}), but all lie on one "
                "side of where the class changes: choose a threshold from the ROC curve"
            )
        else:
            reasons.append(
                f"it has learned little (AUC {number(area, 3)}): train longer, with another "
                "training.learning_rate, or look whether any input separates the classes"
            )
    return [
        f"WARNING: the network predicts class {names[predicted[0]]!r} for all test events"
        + (f"; likely reasons: {'; '.join(reasons)}" if reasons else "")
    ]
