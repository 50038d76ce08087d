"""More than two classes: a logit and a probability for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlaas4hep_dask.journal.text import four_digits
from mlaas4hep_dask.objective.classification import Classification
from mlaas4hep_dask.objective.objective import plain

if TYPE_CHECKING:
    import torch

    from mlaas4hep_dask.objective.objective import Tally


@dataclass(frozen=True)
class Classes(Classification):
    """One class of three or more."""

    kind = "classes"
    score = "probabilities"
    score_meaning = "probability of each class"
    expected = "logits, which become probabilities by a softmax in loss and scores"
    headline = ("accuracy", "accuracy")
    title = "ROC curves of the test set"
    link = "ROC"

    @classmethod
    def takes(cls, num_names: int) -> bool:
        """True for three and more."""
        return num_names > 2

    def targets_of(self) -> Callable[[Any], Any]:
        """Labels as whole numbers."""
        return lambda y: y.long()

    def tally(self, samples: Sequence[str] = ()) -> Tally:
        """As `Objective.tally`."""
        from mlaas4hep_dask.objective.arithmetic.classes import ClassesTally

        del samples
        return ClassesTally(self.names)

    def activation(self) -> torch.nn.Module:
        """As `Objective.activation`."""
        from mlaas4hep_dask.objective.arithmetic.classes import Softmax

        return Softmax(self.kind, self.num_outputs)

    @property
    def scored(self) -> tuple[str, ...]:
        """The classes."""
        return self.names

    @property
    def score_names(self) -> tuple[str, ...]:
        """``score_<class>``."""
        return tuple(f"score_{plain(name)}" for name in self.names)

    def metric_rows(self, test: Mapping[str, Any]) -> list[tuple[str, str]]:
        """As `Objective.metric_rows`."""
        by_class = test.get("auc_by_class") or {}
        rows = [(f"AUC {name}", four_digits(area)) for name, area in by_class.items()]
        return super().metric_rows(test) + rows

    def purpose(self, branch: Sequence[str], loss: str) -> str:
        """As `Objective.purpose`."""
        del loss
        origin = f" `{branch[0]}` gives the class." if branch else ""
        return f"Probabilities of the classes {', '.join(self.names)}.{origin}"
