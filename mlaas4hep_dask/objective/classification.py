"""What two classes and more classes have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlaas4hep_dask.errors import DataError
from mlaas4hep_dask.journal.text import NONE, four_digits
from mlaas4hep_dask.objective.objective import Fault, Objective, Selected

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Classification(Objective):
    """Which class an event is of, told by the label of its sample or by a branch."""

    word = "classification"
    meaning = "which class an event belongs to"
    has_classes = True
    names_key = "classes"
    usual_loss = "cross_entropy"
    more_is_better = ("auc", "accuracy")
    limits = "The score is a probability only for the mixture of samples above."
    area = "mean AUC"  # what reports call it

    @classmethod
    def target_faults(cls, branch: Sequence[str], classes: Sequence[str]) -> list[Fault]:
        """As `Objective.target_faults`."""
        faults = []
        if len(branch) > 1:
            faults.append(
                ("branch", f"a classification has one branch of classes, found {len(branch)}")
            )
        if branch and len(classes) < 2:
            text = "expected the names of at least two classes, since branch gives the class"
            faults.append(("classes", text))
        return faults

    @classmethod
    def label_faults(
        cls, labels: Sequence[int | None], branch: Sequence[str], classes: Sequence[str]
    ) -> list[Fault]:
        """As `Objective.label_faults`."""
        if branch:
            return labels_not_wanted(
                labels, "not wanted, since target.branch gives what to predict"
            )
        missing = [index for index, label in enumerate(labels) if label is None]
        if missing:
            text = "required, but missing; or give target.branch"
            return [(f"samples.{index}.label", text) for index in missing]
        present = {label for label in labels if label is not None}
        num_classes = max(*present, 1) + 1
        absent = [label for label in range(num_classes) if label not in present]
        if absent and num_classes == 2:
            text = (
                "expected samples of both labels, 0 and 1, found only label "
                f"{', '.join(map(str, sorted(present)))}; add a sample, or give target.branch and "
                "no labels to take the class of each event from a branch"
            )
            return [("samples", text)]
        if absent:
            text = f"expected labels 0 to {num_classes - 1}, but no sample has label {absent[0]}"
            return [("samples", text)]
        if classes and len(classes) != num_classes:
            text = f"expected {num_classes} names, one for each label, found {len(classes)}"
            return [("target.classes", text)]
        return []

    @classmethod
    def names_of(
        cls, labels: Mapping[str, int | None], branch: Sequence[str], classes: Sequence[str]
    ) -> tuple[str, ...]:
        """Those that are given, or those of the samples of every label."""
        del branch
        if classes:
            return tuple(classes)
        by_label: dict[int, list[str]] = {}
        for sample, label in labels.items():
            assert label is not None  # `label_faults` has seen to it
            by_label.setdefault(label, []).append(sample)
        return tuple("+".join(by_label[label]) for label in sorted(by_label))

    def fit_for(self, values: NDArray[np.float64]) -> tuple[NDArray[np.bool_], str]:
        """As `Objective.fit_for`: whole numbers from 0 on."""
        good = (values >= 0) & (values < len(self.names)) & (values % 1 == 0)
        return good, f"a class: a whole number from 0 to {len(self.names) - 1}"

    def y_of_sample(self, label: int | None, number: int) -> int:
        """The label."""
        del number
        return 0 if label is None else label

    def fitted(self, selected: Selected) -> Classification:
        """As `Objective.fitted`: events of one class alone teach nothing."""
        filled = [name for name, events in selected.class_events.items() if events]
        if len(filled) == 1:
            (branch,) = selected.branch
            raise DataError(
                f"target.branch {branch!r} is class {filled[0]!r} in every selected event: "
                f"{NOTHING}",
                branch=branch,
            )
        return self

    def wrong_scores(self, low: float, high: float) -> str | None:
        """As `Objective.wrong_scores`: probabilities are between 0 and 1."""
        if low >= 0 and high <= 1:
            return None
        return f"gives scores from {low:.4g} to {high:.4g}, expected probabilities"

    def metric_rows(self, test: Mapping[str, Any]) -> list[tuple[str, str]]:
        """As `Objective.metric_rows`."""
        area = four_digits(test.get("auc"))
        if area == NONE and (absent := self._absent(test)):
            area += f" (no test event of {', '.join(absent)})"
        return [(self.area, area), ("accuracy", four_digits(test.get("accuracy")))]

    def _absent(self, test: Mapping[str, Any]) -> list[str]:
        """The classes that no test event with a weight is of."""
        matrix = test.get("confusion") or []
        return [name for name, row in zip(self.names, matrix, strict=False) if not any(row)]


NOTHING = "there is nothing to learn"
BRANCH_GIVES = "not wanted, since target.branch gives what to predict"


def labels_not_wanted(labels: Sequence[int | None], text: str) -> list[Fault]:
    """A fault of every sample that has a label."""
    return [
        (f"samples.{index}.label", text) for index, label in enumerate(labels) if label is not None
    ]
