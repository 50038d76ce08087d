"""Two classes: one logit, the probability of label 1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlaas4hep_dask.objective.classification import Classification

if TYPE_CHECKING:
    import torch

    from mlaas4hep_dask.objective.objective import Tally


@dataclass(frozen=True)
class TwoClasses(Classification):
    """One class against another."""

    names: tuple[str, ...] = ("label 0", "label 1")

    kind = "binary"
    score = "score"
    score_meaning = "probability of label 1"
    expected = "a logit, which becomes a probability by a sigmoid in loss and score"
    headline = ("auc", "AUC")
    title = "ROC curve of the test set"
    link = "ROC"
    area = "AUC"

    @classmethod
    def takes(cls, num_names: int) -> bool:
        """True for two."""
        return num_names == 2

    @property
    def num_outputs(self) -> int:
        """One logit."""
        return 1

    @property
    def output_tail(self) -> tuple[int, ...]:
        """One number without an axis for it."""
        return ()

    def tally(self, samples: Sequence[str] = ()) -> Tally:
        """As `Objective.tally`."""
        from mlaas4hep_dask.objective.arithmetic.two_classes import TwoClassesTally

        del samples
        return TwoClassesTally()

    def activation(self) -> torch.nn.Module:
        """As `Objective.activation`."""
        from mlaas4hep_dask.objective.arithmetic.two_classes import Sigmoid

        return Sigmoid(self.kind, self.num_outputs)

    def purpose(self, branch: Sequence[str], loss: str) -> str:
        """As `Objective.purpose`."""
        del loss
        if not branch:
            return "Probability that an event belongs to a sample of label 1."
        return (
            f"Probability that an event is of class 1, {self.names[1]}. "
            f"`{branch[0]}` gives the class."
        )


BINARY = TwoClasses()  # of bundles that do not tell
